/* A cache eight times as large as its fast memory: decodes over a toy cache with its blocks in a file, and compares every
 * output with that over the same cache in memory. --help lists the options. */
#include <kvsift/kvsift.h>
#include <kvsift/store.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "decode/count.h"
#include "decode/file.h"

enum { LAYERS = 4, HEADS = 8, KV_HEADS = 2, DIM = 64, BLOCK = 16, PROMPT = 4096, STEPS = 200, TOKENS = PROMPT + STEPS,
       TRACE_EVENTS = 1 << 14 };

static const char help[] =
    "Decodes over a toy cache with its blocks in a file, and compares every output with that over the\n"
    "same cache in memory.\n\n"
    "usage: offload [options]\n\n"
    "  --file PATH      where the blocks go: a new file, gone afterwards       (default: offload.kv)\n"
    "  --fast-blocks N  blocks of a KV head that a layer keeps in fast memory   (default: an eighth)\n"
    "  --late-blocks N  blocks that a layer waits for in a step; the rest is left to the moment tail\n"
    "                   (default: no limit)\n"
    "  --trace FILE     what happened when, for chrome://tracing and Perfetto\n";

typedef struct options {
  const char *path, *trace;
  uint64_t fast_blocks, late_blocks;
} options;

typedef struct rows {
  float token[TOKENS][KV_HEADS * DIM];
} rows;
static rows keys[LAYERS], values[LAYERS];
static float queries[HEADS * DIM], near[HEADS * DIM], far[HEADS * DIM];
static kvsift_policy *policy;
static kvsift_store *store;

static void check(kvsift_status status, const char *what) {
  if (status == KVSIFT_OK) return;
  fprintf(stderr, "%s: %s; %s %s\n", what, kvsift_status_string(status), policy != NULL ? kvsift_last_error(policy) : "",
          store != NULL ? kvsift_store_last_error(store) : "");
  exit(1);
}

static void refuse(const failure *why) {
  fprintf(stderr, "offload: %s\n", why->text);
  exit(1);
}

static bool read_option(options *o, const char *name, const char *value, failure *why) {
  if (strcmp(name, "--fast-blocks") == 0) return read_count(name, value, TOKENS, &o->fast_blocks, why);
  if (strcmp(name, "--late-blocks") == 0) return read_count(name, value, TOKENS, &o->late_blocks, why);
  if (strcmp(name, "--file") == 0) return o->path = value, true;
  if (strcmp(name, "--trace") == 0) return o->trace = value, true;
  return fail(why, "there is no option %s; --help lists them", name);
}

static options read_options(int count, char **words) {
  options o = {.path = "offload.kv", .fast_blocks = TOKENS / BLOCK / 8, .late_blocks = KVSIFT_STORE_NO_LIMIT};
  failure why;
  for (int i = 1; i < count; i += 2) {
    if (strcmp(words[i], "--help") == 0) exit(fputs(help, stdout) < 0);
    const bool valued = i + 1 < count || fail(&why, "%s needs a value", words[i]);
    if (!valued || !read_option(&o, words[i], words[i + 1], &why)) refuse(&why);
  }
  return o;
}

static float noise(void) { return (float)rand() / (float)RAND_MAX - 0.5f; }

/* Keys and queries that wander: what a token looks at is mostly what the last one looked at. */
static void make_cache(void) {
  for (int l = 0; l < LAYERS; ++l) {
    for (int t = 0; t < TOKENS; ++t) {
      for (int i = 0; i < KV_HEADS * DIM; ++i) {
        const float before = t > 0 ? keys[l].token[t - 1][i] : noise();
        keys[l].token[t][i] = 0.9f * before + noise();
        values[l].token[t][i] = noise();
      }
    }
  }
}

static kvsift_view view_of(const rows *r, int token) {
  return (kvsift_view){.data = r->token[token], .token_stride = sizeof r->token[0], .head_stride = DIM * sizeof(float)};
}

static void *memory(uint64_t bytes, uint64_t alignment) {
  void *p = aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment);
  if (p == NULL) check(KVSIFT_ARENA_TOO_SMALL, "memory");
  return p;
}

static void make_policy(void) {
  uint64_t bytes = 0, alignment = 0;
  kvsift_error error = {0};
  kvsift_policy_config c = {.struct_size = sizeof c};
  check(kvsift_policy_config_init(&c, KVSIFT_METHOD_PAGE_STATS), "policy");
  c.layers = LAYERS, c.query_heads = HEADS, c.kv_heads = KV_HEADS, c.head_dim = DIM, c.max_tokens = TOKENS;
  c.budget_tokens = 256, c.grouping = KVSIFT_GROUP_MEAN, c.tail = KVSIFT_TAIL_MOMENTS, c.dense_layers = 0, c.error = &error;
  if (kvsift_policy_arena_size(&c, &bytes, &alignment) != KVSIFT_OK) check(error.status, error.message);
  check(kvsift_policy_create(&c, memory(bytes, alignment), bytes, &policy), error.message);
}

static void make_store(const options *o) {
  uint64_t bytes = 0, alignment = 0;
  kvsift_error error = {0};
  failure why;
  kvsift_store_config c = {.struct_size = sizeof c};
  check(kvsift_store_config_init(&c, KVSIFT_STORE_FILE), "store");
  c.layers = LAYERS, c.query_heads = HEADS, c.kv_heads = KV_HEADS, c.head_dim = DIM, c.max_tokens = TOKENS;
  c.type = c.storage = KVSIFT_F32, c.fast_blocks = (uint32_t)o->fast_blocks, c.late_blocks = (uint32_t)o->late_blocks;
  c.timing = 1, c.trace_events = o->trace != NULL ? TRACE_EVENTS : 0, c.path = o->path, c.error = &error;
  if (kvsift_store_arena_size(&c, &bytes, &alignment) != KVSIFT_OK) check(error.status, error.message);
  void *arena = memory(bytes, alignment);
  if (!file_claim(o->path, &why)) refuse(&why); /* a store would empty a file that is there */
  const kvsift_status status = kvsift_store_create(&c, arena, bytes, &store);
  unlink(o->path); /* the store has it open: so it is gone however this program ends */
  check(status, error.message);
  printf("fast memory %.1f MB, cache %.1f MB in %s\n", (double)bytes / 1e6, (double)sizeof keys * 2 / 1e6, o->path);
}

static void add_tokens(uint32_t layer, uint32_t first, uint32_t tokens) {
  const kvsift_view k = view_of(&keys[layer], (int)first), v = view_of(&values[layer], (int)first);
  check(kvsift_observe_keys(policy, layer, NULL, first, tokens, &k, &v), "observe");
  check(kvsift_store_append(store, layer, first, tokens, &k, &v), "append");
}

/* One layer of a step; returns the largest difference from attention over the whole cache in memory. */
static double attend(uint32_t layer, uint32_t tokens, int capped) {
  kvsift_query query = {.struct_size = sizeof query, .tokens = tokens,
                        .view = {.data = queries, .head_stride = DIM * sizeof(float)}};
  kvsift_selection kept = {.struct_size = sizeof kept}, all = kept;
  kvsift_cache slots = {.struct_size = sizeof slots}, whole = {.struct_size = sizeof whole, .tokens = tokens};
  double largest = 0;
  whole.keys = view_of(&keys[layer], 0), whole.values = view_of(&values[layer], 0);
  check(kvsift_select_blocks(policy, layer, &query, &kept), "select");
  all = kept; /* resolve may take blocks out of `kept`: what comes late is left to the tail */
  check(kvsift_store_resolve(store, layer, &kept, &slots), "resolve");
  check(kvsift_attend(policy, layer, &query, &slots, &kept, near, NULL), "attend");
  check(kvsift_attend(policy, layer, &query, &whole, &all, far, NULL), "attend");
  for (int i = 0; i < HEADS * DIM; ++i) {
    const double difference = fabs((double)near[i] - (double)far[i]);
    if (difference > largest) largest = difference;
  }
  if (!capped && memcmp(near, far, sizeof near) != 0) check(KVSIFT_CORRUPT, "the outputs differ");
  return largest;
}

static void write_trace(const char *path) {
  static const char *const names[] = {"read", "write", "commit", "prefetch", "resolve", "wait", "append"};
  static kvsift_store_event events[TRACE_EVENTS];
  uint32_t count = 0;
  FILE *file = fopen(path, "w");
  if (file == NULL) check(KVSIFT_IO, path);
  check(kvsift_store_read_trace(store, events, TRACE_EVENTS, &count), "trace");
  fprintf(file, "[\n");
  for (uint32_t i = 0; i < count; ++i) {
    const kvsift_store_event *e = &events[i];
    fprintf(file, "{\"name\": \"%s\", \"ph\": \"X\", \"pid\": 1, \"tid\": %u, \"ts\": %.3f, \"dur\": %.3f, \"args\": "
            "{\"layer\": %u, \"kv_head\": %u, \"block\": %u, \"blocks\": %u}}%s\n", names[e->kind], e->thread,
            (double)e->begin_ns / 1e3, (double)(e->end_ns - e->begin_ns) / 1e3, e->layer, e->kv_head, e->block, e->blocks,
            i + 1 < count ? "," : "");
  }
  fprintf(file, "]\n");
  fclose(file);
  printf("%u events in %s\n", count, path);
}

static void report(double largest) {
  kvsift_store_stats s = {.struct_size = sizeof s};
  check(kvsift_store_get_stats(store, &s), "stats");
  const double asked = (double)(s.hits + s.prefetched + s.late + s.dropped);
  printf("read %.1f MB in %llu transfers, wrote %.1f MB\n", (double)s.bytes_read / 1e6, (unsigned long long)s.reads,
         (double)s.bytes_written / 1e6);
  printf("blocks asked for: %.1f%% in fast memory, %.1f%% fetched ahead, %.1f%% late, %.1f%% left to the tail\n",
         100 * (double)s.hits / asked, 100 * (double)s.prefetched / asked, 100 * (double)s.late / asked,
         100 * (double)s.dropped / asked);
  printf("waited %.1f ms of %.1f ms of reading\n", (double)s.waited_ns / 1e6, (double)s.read_ns / 1e6);
  if (largest == 0) printf("every output is bit for bit that of the cache in memory\n");
  else printf("largest difference from the cache in memory: %g\n", largest);
}

int main(int count, char **words) {
  const options o = read_options(count, words);
  make_cache();
  make_policy();
  make_store(&o);
  for (uint32_t l = 0; l < LAYERS; ++l) add_tokens(l, 0, PROMPT);
  check(kvsift_advance(policy, PROMPT), "advance");
  double largest = 0;
  for (uint32_t t = PROMPT; t < TOKENS; ++t) {
    for (int i = 0; i < HEADS * DIM; ++i) queries[i] = 0.9f * queries[i] + 2 * noise();
    for (uint32_t l = 0; l < LAYERS; ++l) {
      add_tokens(l, t, 1);
      const double difference = attend(l, t + 1, o.late_blocks != KVSIFT_STORE_NO_LIMIT);
      if (difference > largest) largest = difference;
    }
    check(kvsift_advance(policy, 1), "advance");
  }
  if (o.trace != NULL) write_trace(o.trace);
  report(largest);
  check(kvsift_store_close(store), "close");
  return 0;
}

/* A decode step over a cache in slow memory, at the geometry of Llama-3.1-8B (8 KV heads, d 128, float16, blocks of 16):
 * the fast tier holds an eighth of the cache; each layer computes for a stated time (a busy wait).
 *
 *     bench_store [--quick] [--traces FOLDER] [--file PATH] [--tokens N] [--layers N] [--steps N] [--compute-us N]
 *                 [--latency-us N] [--bandwidth-mb N] [--io 0|1|2]
 *
 * For each plan and each slow tier (throttled: fixed latency and bandwidth; file: O_DIRECT) the median step time
 *     whole     of reading the whole cache every step, the next layer's read under this layer's compute,
 *     late      of the selection, fetched when the query is there,
 *     prefetch  with what is known a token early fetched ahead,
 *     capped    so, and nothing fetched late: it is left to the tail and fetched for later steps,
 *     resident  with everything in fast memory.
 * hidden = 1 - (prefetch - resident) / (late - resident), and with capped for prefetch. Prints JSON. */
#include "fake_device.h"

#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include <kvsift/kvsift.h>

#include "store_plan.h"

enum { DIM = 128, WARM = 16, MOST_STEPS = 1024, ROW = PLAN_HEADS * DIM, CHUNK = 1 << 20, READERS = 4 };

typedef struct options {
  uint32_t quick, tokens, layers, steps, compute_us, latency_us, bandwidth_mb, io;
  const char *traces, *path;
} options;

typedef struct slow_tier {
  const char *name;
  kvsift_store_config config;
  fake_device device;
  kvsift_store_device calls;
  uint64_t bytes;
} slow_tier;

typedef struct outcome {
  double step_ms, mean_ms, read_mb, hits, early, late, dropped, waited_ms;
} outcome;

static void must(int condition, const char *what) {
  if (condition) return;
  fprintf(stderr, "%s\n", what);
  exit(1);
}

static uint16_t mark(uint32_t layer, uint32_t head, uint32_t token) {
  return (uint16_t)(0x3c00u | ((layer * 977u + head * 131u + token * 7u) & 0x3ffu));
}

static void append(kvsift_store *store, uint32_t layer, uint32_t first, uint32_t tokens) {
  static uint16_t rows[256 * ROW];
  for (uint32_t t = 0; t < tokens; ++t) {
    for (uint32_t h = 0; h < PLAN_HEADS; ++h) rows[t * ROW + h * DIM] = mark(layer, h, first + t);
  }
  const kvsift_view view = {.data = rows, .type = KVSIFT_F16, .token_stride = ROW * 2, .head_stride = DIM * 2};
  must(kvsift_store_append(store, layer, first, tokens, &view, &view) == KVSIFT_OK, kvsift_store_last_error(store));
}

typedef struct lists {
  kvsift_range ranges[PLAN_HEADS][PLAN_MOST + 2];
  uint32_t counts[PLAN_HEADS];
} lists;

static kvsift_selection select_lists(const plan *p, plan_list *from, uint32_t step, uint32_t layer, lists *l) {
  const uint32_t tokens = p->prompt + step + 1;
  for (uint32_t h = 0; h < PLAN_HEADS; ++h) {
    const plan_list *list = plan_at(p, from, step, layer, h);
    l->ranges[h][0] = (kvsift_range){0, PLAN_SINK};
    for (uint32_t i = 0; i < list->count; ++i) {
      l->ranges[h][i + 1] = (kvsift_range){list->blocks[i] * PLAN_BLOCK, (list->blocks[i] + 1u) * PLAN_BLOCK};
    }
    l->ranges[h][list->count + 1] = (kvsift_range){tokens - PLAN_LOCAL, tokens};
    l->counts[h] = list->count + 2;
  }
  return (kvsift_selection){.struct_size = sizeof(kvsift_selection), .tokens = tokens, .lists = PLAN_HEADS,
                            .block_tokens = PLAN_BLOCK, .range_stride = PLAN_MOST + 2, .ranges = l->ranges[0],
                            .range_counts = l->counts};
}

/* The first key of every block that was asked for is the right one. */
static void check(const kvsift_selection *s, const kvsift_cache *cache, uint32_t layer) {
  for (uint32_t h = 0; h < s->lists; ++h) {
    for (uint32_t r = 0; r < s->range_counts[h]; ++r) {
      const uint32_t token = s->ranges[(size_t)h * s->range_stride + r].begin;
      const int32_t slot = cache->block_table[(size_t)h * cache->block_table_stride + token / PLAN_BLOCK];
      const uint8_t *key = (const uint8_t *)cache->keys.data + (uint64_t)slot * cache->keys.page_stride +
                           token % PLAN_BLOCK * cache->keys.token_stride;
      must(slot >= 0 && *(const uint16_t *)key == mark(layer, h, token), "a wrong row");
    }
  }
}

static void compute(uint32_t us) {
  const uint64_t end = fake_now() + us * 1000ull;
  while (fake_now() < end) continue;
}

static void step_layer(kvsift_store *store, const plan *p, uint32_t step, uint32_t layer, int ahead, uint32_t us) {
  static lists l;
  kvsift_cache cache = {.struct_size = sizeof cache};
  kvsift_selection s = select_lists(p, p->all, step, layer, &l);
  append(store, layer, p->prompt + step, 1);
  must(kvsift_store_resolve(store, layer, &s, &cache) == KVSIFT_OK, kvsift_store_last_error(store));
  check(&s, &cache, layer);
  compute(us);
  if (!ahead || step + 1 == p->steps) return;
  s = select_lists(p, p->early, step + 1, layer, &l);
  must(kvsift_store_prefetch(store, layer, &s, NULL) == KVSIFT_OK, kvsift_store_last_error(store));
}

/* How a run goes about it. */
enum { LATE, AHEAD, CAPPED, RESIDENT, MODES };
static const char *const kModes[MODES] = {"late", "prefetch", "capped", "resident"};

static void configure(slow_tier *tier, const options *o, const plan *p, int mode) {
  const int resident = mode == RESIDENT;
  kvsift_store_config *c = &tier->config;
  const int file = strcmp(tier->name, "file") == 0;
  *c = (kvsift_store_config){.struct_size = sizeof *c};
  must(kvsift_store_config_init(c, file ? KVSIFT_STORE_FILE : KVSIFT_STORE_CUSTOM) == KVSIFT_OK, "config");
  c->layers = p->layers, c->kv_heads = PLAN_HEADS, c->head_dim = DIM, c->max_tokens = p->prompt + p->steps;
  c->sink_tokens = PLAN_SINK, c->local_tokens = PLAN_LOCAL, c->timing = 1;
  c->fast_blocks = c->max_tokens / PLAN_BLOCK / (resident ? 1 : 8) + (resident ? 1 : 0);
  if (mode == CAPPED) c->late_blocks = 0;
  c->path = o->path, c->io = o->io, c->device = &tier->calls;
  /* A device with a queue takes many transfers at once: plain calls need a thread for each. */
  if (!file) c->threads = 16;
}

static int ascending(const void *a, const void *b) {
  const double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

static outcome run(slow_tier *tier, const options *o, const plan *p, int mode) {
  kvsift_error error = {0};
  kvsift_store *store = NULL;
  uint64_t bytes = 0, alignment = 0;
  configure(tier, o, p, mode);
  tier->config.error = &error;
  must(kvsift_store_arena_size(&tier->config, &bytes, &alignment) == KVSIFT_OK, error.message);
  void *arena = aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment);
  memset(arena, 0, bytes);
  tier->device.bandwidth = 0;
  must(kvsift_store_create(&tier->config, arena, bytes, &store) == KVSIFT_OK, error.message);
  for (uint32_t l = 0; l < p->layers; ++l) {
    for (uint32_t t = 0; t < p->prompt; t += 256) append(store, l, t, p->prompt - t < 256 ? p->prompt - t : 256);
  }
  must(kvsift_store_flush(store) == KVSIFT_OK, kvsift_store_last_error(store));
  tier->device.bandwidth = (uint64_t)o->bandwidth_mb * 1000000u;
  tier->device.latency_ns = o->latency_us * 1000ull;
  kvsift_store_stats before = {.struct_size = sizeof before}, after = before;
  double times[MOST_STEPS], sum = 0;
  for (uint32_t s = 0; s < p->steps; ++s) {
    if (s == WARM) must(kvsift_store_get_stats(store, &before) == KVSIFT_OK, "stats");
    const uint64_t begin = fake_now();
    for (uint32_t l = 0; l < p->layers; ++l) step_layer(store, p, s, l, mode == AHEAD || mode == CAPPED, o->compute_us);
    if (s < WARM) continue;
    times[s - WARM] = (double)(fake_now() - begin) / 1e6;
    sum += times[s - WARM];
  }
  const double steps = p->steps - WARM;
  qsort(times, p->steps - WARM, sizeof *times, ascending);
  must(kvsift_store_get_stats(store, &after) == KVSIFT_OK, "stats");
  tier->device.bandwidth = 0;
  must(kvsift_store_close(store) == KVSIFT_OK, "close");
  free(arena);
  const double hits = (double)(after.hits - before.hits), early = (double)(after.prefetched - before.prefetched);
  const double late = (double)(after.late - before.late), dropped = (double)(after.dropped - before.dropped);
  const double asked = hits + early + late + dropped;
  return (outcome){times[(p->steps - WARM) / 2], sum / steps, (double)(after.bytes_read - before.bytes_read) / steps / 1e6, hits / asked,
                   early / asked, late / asked, dropped / asked, (double)(after.waited_ns - before.waited_ns) / steps / 1e6};
}

/* Reads one layer in pieces of a megabyte, several at a time. */
typedef struct reader {
  slow_tier *tier;
  int fd;
  uint64_t begin, end;
  void *buffer;
} reader;

static void *read_part(void *argument) {
  reader *r = (reader *)argument;
  for (uint64_t at = r->begin; at < r->end; at += CHUNK) {
    const kvsift_store_span span = {r->buffer, CHUNK};
    const int64_t done = r->fd >= 0 ? pread(r->fd, r->buffer, CHUNK, (off_t)at) : fake_read(&r->tier->device, at, &span, 1);
    must(done > 0, "reading the whole cache");
  }
  return NULL;
}

static double read_layer_ms(slow_tier *tier, const options *o, const plan *p) {
  const uint64_t layer = (uint64_t)p->prompt * ROW * 4, part = layer / READERS / CHUNK * CHUNK;
  const int fd = strcmp(tier->name, "file") == 0 ? open(o->path, O_RDONLY | O_DIRECT) : -1;
  pthread_t threads[READERS];
  reader readers[READERS];
  must(part > 0, "the cache is too small to be read in pieces");
  tier->device.bandwidth = (uint64_t)o->bandwidth_mb * 1000000u;
  const uint64_t begin = fake_now();
  for (uint32_t i = 0; i < READERS; ++i) {
    readers[i] = (reader){tier, fd, i * part, (i + 1) * part, aligned_alloc(4096, CHUNK)};
    must(pthread_create(&threads[i], NULL, read_part, &readers[i]) == 0, "thread");
  }
  for (uint32_t i = 0; i < READERS; ++i) {
    pthread_join(threads[i], NULL);
    free(readers[i].buffer);
  }
  const double ms = (double)(fake_now() - begin) / 1e6 * (double)layer / (double)(part * READERS);
  tier->device.bandwidth = 0;
  if (fd >= 0) close(fd);
  return ms;
}

static void print_outcome(const char *name, outcome r) {
  printf("  \"%s\": {\"step_ms\": %.3f, \"mean_ms\": %.3f, \"read_mb\": %.2f, \"hits\": %.3f, \"prefetched\": %.3f, \"late\": %.3f, "
         "\"dropped\": %.3f, \"waited_ms\": %.3f},\n", name, r.step_ms, r.mean_ms, r.read_mb, r.hits, r.early, r.late,
         r.dropped, r.waited_ms);
}

static void measure(const options *o, const plan *p, slow_tier *tier, int last) {
  tier->calls = fake_calls(&tier->device);
  configure(tier, o, p, 0);
  must(kvsift_store_slow_size(&tier->config, &tier->bytes) == KVSIFT_OK, "size");
  fake_open(&tier->device, strcmp(tier->name, "file") == 0 ? 1 : tier->bytes);
  outcome of[MODES];
  for (int mode = 0; mode < MODES; ++mode) of[mode] = run(tier, o, p, mode);
  const double layer_ms = read_layer_ms(tier, o, p), compute_ms = o->compute_us / 1000.0;
  const double whole = p->layers * (layer_ms > compute_ms ? layer_ms : compute_ms);
  const plan_figures f = plan_measure(p);
  printf(" {\"plan\": \"%s\", \"slow_tier\": \"%s\", \"tokens\": %u, \"layers\": %u, \"steps\": %u, \"compute_ms\": %.2f,\n"
         "  \"blocks\": %.1f, \"overlap\": %.3f, \"known_early\": %.3f, \"cache_mb\": %.1f, \"fast_share\": 0.125,\n",
         p->source, tier->name, p->prompt, p->layers, p->steps - WARM, compute_ms, f.blocks, f.overlap, f.known,
         (double)p->prompt * ROW * 4 * p->layers / 1e6);
  for (int mode = 0; mode < MODES; ++mode) print_outcome(kModes[mode], of[mode]);
  const double rest = of[RESIDENT].step_ms, fetch = of[LATE].step_ms - rest;
  printf("  \"whole_ms\": %.2f, \"whole_over_prefetch\": %.2f, \"hidden_by_prefetch\": %.3f, \"hidden_capped\": %.3f}%s\n",
         whole, whole / of[AHEAD].step_ms, 1 - (of[AHEAD].step_ms - rest) / fetch, 1 - (of[CAPPED].step_ms - rest) / fetch,
         last ? "" : ",");
  fflush(stdout);
  fake_close(&tier->device);
}

static uint32_t number(const char *text) { return (uint32_t)strtoul(text, NULL, 10); }

static options parse(int count, char **words) {
  options o = {0, 32768, 4, 64, 4000, 100, 1000, 0, NULL, "kvsift_bench.store"};
  for (int i = 1; i < count; ++i) {
    const char *next = i + 1 < count ? words[i + 1] : "";
    if (strcmp(words[i], "--quick") == 0) {
      o.quick = 1, o.tokens = 4096, o.layers = 2, o.steps = 24, o.compute_us = 200;
      continue;
    }
    if (strcmp(words[i], "--traces") == 0) o.traces = next;
    else if (strcmp(words[i], "--file") == 0) o.path = next;
    else if (strcmp(words[i], "--tokens") == 0) o.tokens = number(next);
    else if (strcmp(words[i], "--layers") == 0) o.layers = number(next);
    else if (strcmp(words[i], "--steps") == 0) o.steps = number(next);
    else if (strcmp(words[i], "--compute-us") == 0) o.compute_us = number(next);
    else if (strcmp(words[i], "--latency-us") == 0) o.latency_us = number(next);
    else if (strcmp(words[i], "--bandwidth-mb") == 0) o.bandwidth_mb = number(next);
    else if (strcmp(words[i], "--io") == 0) o.io = number(next);
    else must(0, "usage: see the head of bench_store.c");
    ++i;
  }
  must(o.steps > WARM && o.steps <= MOST_STEPS && o.layers > 0 && o.tokens >= 4096,
       "steps must be 17 to 1024, tokens 4096 or more");
  return o;
}

int main(int count, char **words) {
  static slow_tier throttled = {.name = "throttled"}, file = {.name = "file"};
  const options o = parse(count, words);
  plan p;
  printf("[\n");
  plan_make_synthetic(&p, o.layers, o.steps, o.tokens, o.tokens / 32, (plan_rates){0.42, 0.75, 0.75});
  measure(&o, &p, &throttled, 0);
  measure(&o, &p, &file, o.traces == NULL);
  plan_free(&p);
  for (int choice = 0; o.traces != NULL && choice < PLAN_CHOICES; ++choice) {
    must(plan_make_traced(&p, o.traces, o.layers, o.steps, o.tokens, (plan_choice)choice) == 0, "the traces cannot be read");
    measure(&o, &p, &throttled, 0);
    measure(&o, &p, &file, choice + 1 == PLAN_CHOICES);
    plan_free(&p);
  }
  printf("]\n");
  unlink(o.path);
  return 0;
}

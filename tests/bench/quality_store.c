/* What a late cap costs: page statistics choose 256 of about 3,000 recorded tokens, the fast tier holds an eighth of them, and
 * what is not there when the query is goes to the moment tail. Error |o - o_full| / |o_full|, mean over heads and steps.
 *
 *     quality_store ../shared/traces/war_and_peace
 *
 * late_blocks counts the blocks of a layer (4 KV heads) that a step waits for. Prints JSON. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <kvsift/kvsift.h>
#include <kvsift/store.h>

#include "store_trace.h"

typedef struct figures {
  double error, asked, dropped, late, read_bytes;
  uint32_t steps;
} figures;

static kvsift_store *open_store(const trace *t, uint32_t late_blocks, void **arena, void **host) {
  kvsift_error error = {0};
  kvsift_store *store = NULL;
  uint64_t bytes = 0, alignment = 0, slow = 0;
  kvsift_store_config c = {.struct_size = sizeof c};
  trace_must(kvsift_store_config_init(&c, KVSIFT_STORE_HOST) == KVSIFT_OK, "config");
  c.layers = 1, c.query_heads = TRACE_QUERIES, c.kv_heads = TRACE_HEADS, c.head_dim = TRACE_DIM, c.max_tokens = t->tokens;
  c.sink_tokens = TRACE_SINK, c.local_tokens = TRACE_LOCAL, c.fast_blocks = t->tokens / 16 / 8, c.late_blocks = late_blocks;
  c.error = &error;
  trace_must(kvsift_store_slow_size(&c, &slow) == KVSIFT_OK, error.message);
  *host = c.host_memory = aligned_alloc(64, (size_t)slow);
  c.host_bytes = slow;
  trace_must(kvsift_store_arena_size(&c, &bytes, &alignment) == KVSIFT_OK, error.message);
  *arena = aligned_alloc((size_t)alignment, (size_t)bytes);
  trace_must(kvsift_store_create(&c, *arena, bytes, &store) == KVSIFT_OK, error.message);
  return store;
}

static double relative_error(const float *a, const float *full) {
  double sum = 0;
  for (uint32_t h = 0; h < TRACE_QUERIES; ++h) {
    double difference = 0, size = 0;
    for (uint32_t i = h * TRACE_DIM; i < (h + 1) * TRACE_DIM; ++i) {
      difference += ((double)a[i] - (double)full[i]) * ((double)a[i] - (double)full[i]);
      size += (double)full[i] * (double)full[i];
    }
    sum += sqrt(difference / size);
  }
  return sum / TRACE_QUERIES;
}

static void append(const trace *t, kvsift_store *store, uint32_t first, uint32_t tokens) {
  const kvsift_view keys = trace_rows(&t->k, TRACE_HEADS, first), values = trace_rows(&t->v, TRACE_HEADS, first);
  trace_must(kvsift_store_append(store, 0, first, tokens, &keys, &values) == KVSIFT_OK, kvsift_store_last_error(store));
}

static void step(const trace *t, kvsift_policy *policy, kvsift_store *store, uint32_t s, figures *f) {
  float out[TRACE_QUERIES * TRACE_DIM], full[TRACE_QUERIES * TRACE_DIM];
  const kvsift_query query = trace_query(t, s);
  const kvsift_cache whole = trace_cache(t, query.tokens);
  const kvsift_view key = trace_rows(&t->k, TRACE_HEADS, query.tokens - 1);
  const kvsift_view value = trace_rows(&t->v, TRACE_HEADS, query.tokens - 1);
  kvsift_cache slots = {.struct_size = sizeof slots};
  kvsift_selection kept = {.struct_size = sizeof kept};
  append(t, store, query.tokens - 1, 1);
  trace_must(kvsift_observe_keys(policy, 0, NULL, query.tokens - 1, 1, &key, &value) == KVSIFT_OK &&
             kvsift_select_blocks(policy, 0, &query, &kept) == KVSIFT_OK, kvsift_last_error(policy));
  kvsift_selection everything = kept;
  const kvsift_range all = {0, query.tokens};
  kvsift_range ranges[TRACE_HEADS] = {all, all, all, all};
  uint32_t counts[TRACE_HEADS] = {1, 1, 1, 1};
  everything.everything = 1, everything.range_stride = 1, everything.ranges = ranges, everything.range_counts = counts;
  everything.tail = KVSIFT_TAIL_NONE;
  trace_must(kvsift_store_resolve(store, 0, &kept, &slots) == KVSIFT_OK, kvsift_store_last_error(store));
  trace_must(kvsift_attend(policy, 0, &query, &slots, &kept, out, NULL) == KVSIFT_OK &&
             kvsift_attend(policy, 0, &query, &whole, &everything, full, NULL) == KVSIFT_OK &&
             kvsift_advance(policy, 1) == KVSIFT_OK, kvsift_last_error(policy));
  f->error += relative_error(out, full);
  ++f->steps;
}

static void run(const trace *t, uint32_t late_blocks, figures *f) {
  void *arena, *host, *policy_arena;
  const trace_policy choice = {KVSIFT_METHOD_PAGE_STATS, 256, 0, KVSIFT_TAIL_MOMENTS};
  kvsift_policy *policy = trace_start(t, choice, &policy_arena);
  kvsift_store *store = open_store(t, late_blocks, &arena, &host);
  append(t, store, 0, t->prompt);
  for (uint32_t s = 0; s < t->steps; ++s) step(t, policy, store, s, f);
  kvsift_store_stats stats = {.struct_size = sizeof stats};
  trace_must(kvsift_store_get_stats(store, &stats) == KVSIFT_OK, "stats");
  f->asked += (double)(stats.hits + stats.prefetched + stats.late + stats.dropped);
  f->dropped += (double)stats.dropped, f->late += (double)stats.late, f->read_bytes += (double)stats.bytes_read;
  trace_must(kvsift_store_close(store) == KVSIFT_OK, "close");
  free(arena), free(host), free(policy_arena);
}

int main(int count, char **words) {
  static const uint32_t caps[] = {KVSIFT_STORE_NO_LIMIT, 16, 8, 4, 2, 0};
  static const int layers[TRACE_LAYERS] = {3, 6, 9};
  enum { CAPS = sizeof caps / sizeof *caps };
  trace_must(count == 2, "usage: quality_store FOLDER");
  printf("[\n");
  for (uint32_t c = 0; c < CAPS; ++c) {
    figures f = {0};
    for (uint32_t l = 0; l < TRACE_LAYERS; ++l) {
      trace t;
      trace_must(trace_load(&t, words[1], layers[l]) == 0, "the traces cannot be read");
      run(&t, caps[c], &f);
      trace_free(&t);
    }
    printf(" {\"late_blocks\": %d, \"error\": %.4f, \"late\": %.3f, \"left_to_the_tail\": %.3f, \"read_kb_a_step\": %.1f}%s\n",
           caps[c] == KVSIFT_STORE_NO_LIMIT ? -1 : (int)caps[c], f.error / f.steps, f.late / f.asked, f.dropped / f.asked,
           f.read_bytes / f.steps / 1e3, c + 1 == CAPS ? "" : ",");
  }
  printf("]\n");
  return 0;
}

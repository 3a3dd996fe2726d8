#define _POSIX_C_SOURCE 199309L
#include "bench_offload_steps.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <kvsift/kvsift_cuda.h>

#include "gpu.h"

enum { KV_HEADS = 8, GROUP = 4, BLOCK = 16, STRETCH = 1024, WARM = 8, STEPS = 40, BUDGET = 1024 };

typedef struct world {
  uint32_t tokens, layers, dim, steps, budget;
  kvsift_cuda_policy *policy;
  kvsift_cuda_store *store;
  void *memory[6];          /* arenas: device, pinned and host of policy and store */
  uint16_t *stretch;        /* host: rows of STRETCH tokens, all KV heads */
  void *rows;               /* the same on the device */
  float *queries, *out;     /* device: [step][layer][query head][dim]; [query head][dim] */
  uint64_t random;
} world;

static uint32_t random_bits(world *w) {
  w->random = w->random * 6364136223846793005u + 1442695040888963407u;
  return (uint32_t)(w->random >> 33);
}

static void must(kvsift_status status, const char *sentence) {
  if (status == KVSIFT_OK) return;
  fprintf(stderr, "%s: %s\n", kvsift_status_string(status), sentence);
  exit(1);
}
#define ON_POLICY(w, call) must(call, kvsift_cuda_last_error((w)->policy))
#define ON_STORE(w, call) must(call, kvsift_cuda_store_last_error((w)->store))

static kvsift_cuda_arenas new_arenas(world *w, uint32_t first, const kvsift_cuda_sizes *sizes) {
  kvsift_cuda_arenas a = {.struct_size = sizeof a, .device_bytes = sizes->device, .pinned_bytes = sizes->pinned, .host_bytes = sizes->host};
  a.device = w->memory[first] = gpu_new(sizes->device, NULL);
  a.pinned = w->memory[first + 1] = gpu_new_pinned(sizes->pinned);
  a.host = w->memory[first + 2] = aligned_alloc(KVSIFT_ARENA_ALIGNMENT, (sizes->host + 63) / 64 * 64);
  return a;
}

static void create_policy(world *w) {
  kvsift_error error = {0};
  kvsift_cuda_sizes sizes = {.struct_size = sizeof sizes};
  kvsift_policy_config c = {.struct_size = sizeof c};
  must(kvsift_policy_config_init(&c, KVSIFT_METHOD_PAGE_STATS), "config");
  c.layers = w->layers, c.query_heads = KV_HEADS * GROUP, c.kv_heads = KV_HEADS, c.head_dim = w->dim;
  c.max_tokens = w->tokens + WARM + w->steps, c.budget_tokens = w->budget, c.dense_layers = 0;
  c.dense_tokens = KVSIFT_DENSE_OFF, c.tail = KVSIFT_TAIL_MOMENTS, c.error = &error;
  must(kvsift_cuda_policy_sizes(&c, &sizes), error.message);
  const kvsift_cuda_arenas arenas = new_arenas(w, 0, &sizes);
  must(kvsift_cuda_policy_create(&c, &arenas, gpu_stream(), &w->policy), error.message);
}

static void create_store(world *w, offload_form form) {
  kvsift_error error = {0};
  kvsift_cuda_sizes sizes = {.struct_size = sizeof sizes};
  kvsift_cuda_store_config c = {.struct_size = sizeof c};
  kvsift_policy_info info = {.struct_size = sizeof info};
  ON_POLICY(w, kvsift_cuda_policy_get_info(w->policy, &info));
  must(kvsift_cuda_store_config_init(&c), "config");
  c.layers = w->layers, c.query_heads = KV_HEADS * GROUP, c.kv_heads = KV_HEADS, c.head_dim = w->dim;
  c.max_tokens = w->tokens + WARM + w->steps, c.max_ranges = info.max_ranges, c.error = &error;
  c.fast_blocks = w->tokens / BLOCK / form.share + w->budget / BLOCK + (w->budget < BUDGET ? 24 : 8);
  c.late_blocks = form.late_blocks, c.checksums = form.checksums;
  if (form.int8) c.storage = KVSIFT_I8;
  must(kvsift_cuda_store_sizes(&c, &sizes), error.message);
  const kvsift_cuda_arenas arenas = new_arenas(w, 3, &sizes);
  must(kvsift_cuda_store_create(&c, &arenas, gpu_stream(), &w->store), error.message);
}

static kvsift_view view_of(const world *w) {
  const uint64_t row = 2ull * w->dim;
  return (kvsift_view){.data = w->rows, .type = KVSIFT_F16, .token_stride = row, .head_stride = STRETCH * row};
}

/* New rows of magnitudes 0.25 .. 2 on the device. */
static void make_rows(world *w) {
  const uint64_t count = (uint64_t)KV_HEADS * STRETCH * w->dim;
  for (uint64_t i = 0; i < count; ++i) {
    const uint32_t bits = random_bits(w);
    w->stretch[i] = (uint16_t)((bits & 0x8000u) | ((13u + (bits >> 16) % 3u) << 10) | (bits & 0x3ffu));
  }
  gpu_write(w->rows, w->stretch, 2 * count);
}

static void put_rows(world *w, uint32_t layer, uint32_t first, uint32_t count) {
  const kvsift_view view = view_of(w);
  ON_STORE(w, kvsift_cuda_store_append(w->store, layer, first, count, &view, &view, gpu_stream()));
  ON_POLICY(w, kvsift_cuda_observe_keys(w->policy, layer, NULL, first, count, &view, &view, gpu_stream()));
}

static void read_prompt(world *w) {
  for (uint32_t first = 0; first < w->tokens; first += STRETCH) {
    make_rows(w);
    for (uint32_t layer = 0; layer < w->layers; ++layer) put_rows(w, layer, first, STRETCH);
    gpu_wait();
  }
  ON_POLICY(w, kvsift_cuda_advance(w->policy, w->tokens, gpu_stream()));
  ON_STORE(w, kvsift_cuda_store_flush(w->store));
}

/* A query of each head that wanders about a place of its own from step to step, as real ones do. */
static void make_queries(world *w) {
  const uint32_t heads = w->layers * KV_HEADS * GROUP * w->dim, steps = WARM + w->steps;
  float *all = malloc(sizeof *all * steps * heads);
  for (uint32_t i = 0; i < heads; ++i) {
    const float place = (float)(random_bits(w) % 2001) / 1000.0f - 1.0f;
    for (uint32_t t = 0; t < steps; ++t) all[(size_t)t * heads + i] = place + ((float)(random_bits(w) % 2001) / 1000.0f - 1.0f) * 0.2f;
  }
  w->queries = gpu_new(sizeof *all * steps * heads, all);
  free(all);
}

static void step(world *w, uint32_t t) {
  const uint32_t tokens = w->tokens + t, heads = KV_HEADS * GROUP * w->dim;
  for (uint32_t layer = 0; layer < w->layers; ++layer) {
    const kvsift_query query = {.struct_size = sizeof query, .tokens = tokens + 1,
        .view = {.data = w->queries + ((size_t)t * w->layers + layer) * heads, .type = KVSIFT_F32, .head_stride = 4ull * w->dim}};
    kvsift_cuda_selection chosen = {.struct_size = sizeof chosen};
    kvsift_selection lists = {.struct_size = sizeof lists};
    kvsift_cache cache = {.struct_size = sizeof cache};
    put_rows(w, layer, tokens, 1);
    ON_POLICY(w, kvsift_cuda_select_blocks(w->policy, layer, &query, &chosen, gpu_stream()));
    ON_STORE(w, kvsift_cuda_store_receive(w->store, &chosen, gpu_stream(), &lists));
    const kvsift_range *received = lists.ranges;
    ON_STORE(w, kvsift_cuda_store_resolve(w->store, layer, &lists, &cache, gpu_stream()));
    if (lists.ranges != received) {
      ON_POLICY(w, kvsift_cuda_keep_present(w->policy, layer, &query, &cache, NULL, gpu_stream()));
    }
    ON_POLICY(w, kvsift_cuda_attend(w->policy, layer, &query, &cache, w->out, NULL, gpu_stream()));
  }
  ON_POLICY(w, kvsift_cuda_advance(w->policy, 1, gpu_stream()));
}

static double seconds_now(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

offload_steps bench_offload_steps(uint32_t tokens, bool quick, offload_form form) {
  if (quick && form.late_blocks != KVSIFT_STORE_NO_LIMIT) form.late_blocks = 1; /* few blocks are late in a tiny shape */
  world *w = calloc(1, sizeof *w);
  *w = (world){.tokens = tokens, .layers = quick ? 2 : 4, .dim = quick ? 16 : 128, .steps = quick ? 2 : STEPS, .budget = quick ? 256 : BUDGET, .random = 11};
  w->stretch = malloc(2ull * KV_HEADS * STRETCH * w->dim);
  w->rows = gpu_new(2ull * KV_HEADS * STRETCH * w->dim, NULL);
  w->out = gpu_new(4ull * KV_HEADS * GROUP * w->dim, NULL);
  create_policy(w);
  create_store(w, form);
  read_prompt(w);
  make_queries(w);
  for (uint32_t t = 0; t < WARM; ++t) step(w, t);
  kvsift_store_stats before = {.struct_size = sizeof before}, after = before;
  ON_STORE(w, kvsift_cuda_store_get_stats(w->store, &before));
  gpu_wait();
  const double began = seconds_now();
  for (uint32_t t = 0; t < w->steps; ++t) step(w, WARM + t);
  gpu_wait();
  const double us = 1e6 * (seconds_now() - began) / w->steps / w->layers;
  ON_STORE(w, kvsift_cuda_store_get_stats(w->store, &after));
  const double came = (double)(after.prefetched - before.prefetched); /* left out by a late cap a step before */
  const double hits = came + (double)(after.hits - before.hits), late = (double)(after.late - before.late);
  const double dropped = (double)(after.dropped - before.dropped), all = hits + late + dropped;
  const double read_kb = (double)(after.bytes_read - before.bytes_read) / 1024 / w->steps / w->layers;
  ON_STORE(w, kvsift_cuda_store_destroy(w->store));
  ON_POLICY(w, kvsift_cuda_policy_destroy(w->policy));
  for (uint32_t i = 0; i < 6; i += 3) {
    gpu_free(w->memory[i]);
    gpu_free_pinned(w->memory[i + 1]);
    free(w->memory[i + 2]);
  }
  gpu_free(w->rows), gpu_free(w->out), gpu_free(w->queries);
  free(w->stretch);
  free(w);
  return (offload_steps){us, hits / all, dropped / all, read_kb};
}

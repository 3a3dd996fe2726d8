#include "bench_world.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gpu.h"

enum { BLOCK = 16, STEPS_MOST = 128 };
static const double kRotated = 256e6; /* bytes that a sparse step reads over all layers, beyond any cache on the chip */

static uint16_t random_half(uint64_t *state) {
  *state = *state * 6364136223846793005u + 1442695040888963407u;
  const uint32_t bits = (uint32_t)(*state >> 33);
  /* Sign, an exponent around 1, any fraction: magnitudes 0.25 .. 2. */
  return (uint16_t)((bits & 0x8000u) | ((13u + (bits >> 16) % 3u) << 10) | (bits & 0x3ffu));
}

/* Device memory full of float16 noise: a stretch from the host, then copies of it. */
static void *noise(size_t bytes) {
  const size_t stretch = bytes < (16u << 20) ? bytes : 16u << 20;
  uint16_t *values = malloc(stretch);
  uint64_t state = 1;
  for (size_t i = 0; i < stretch / 2; ++i) values[i] = random_half(&state);
  char *memory = gpu_new(bytes, NULL);
  gpu_write(memory, values, stretch);
  for (size_t done = stretch; done < bytes;) {
    const size_t part = done < bytes - done ? done : bytes - done;
    gpu_copy(memory + done, memory, part);
    done += part;
  }
  gpu_wait();
  free(values);
  return memory;
}

static uint32_t blocks_of(const bench_world *w) { return (w->room + BLOCK - 1) / BLOCK; }

/* In each KV head one block in 64 holds a share of 0.015, half of the mass at 32,768 tokens; the others next to nothing. */
static void make_peaks(bench_world *w) {
  const uint32_t blocks = blocks_of(w), group = w->query_heads / w->kv_heads;
  const size_t count = (size_t)w->query_heads * blocks;
  float *max = malloc(count * sizeof *max), *mass = malloc(count * sizeof *mass), lse[64];
  uint64_t state = 7;
  for (size_t i = 0; i < count; ++i) {
    const uint32_t place = (uint32_t)(i % blocks), kv_head = (uint32_t)(i / blocks) / group;
    const bool peak = (place * 2654435761u + kv_head * 40503u) >> 26 == 0;
    max[i] = peak ? 3.8f : -2.0f - (float)(random_half(&state) & 0xfu);
    mass[i] = expf(max[i] - 8.0f);
  }
  for (uint32_t h = 0; h < w->query_heads; ++h) lse[h] = 8.0f;
  w->peaked_max = gpu_new(count * sizeof *max, max);
  w->peaked_mass = gpu_new(count * sizeof *mass, mass);
  w->log_sum_exp = gpu_new(w->query_heads * sizeof *lse, lse);
  free(max);
  free(mass);
}

bench_world *bench_world_new(uint32_t tokens, uint32_t batch, bool tiny) {
  bench_world *w = calloc(1, sizeof *w);
  *w = (bench_world){.query_heads = tiny ? 4 : 32, .kv_heads = tiny ? 2 : 8, .dim = tiny ? 64 : 128, .tokens = tokens,
                     .room = tokens + STEPS_MOST, .batch = batch};
  const double pages = (double)tokens / BLOCK * w->kv_heads * 512, chosen = 1024.0 * w->kv_heads * w->dim * 4;
  w->layers = tiny ? 2 : (uint32_t)ceil(kRotated / (batch * (pages + chosen)));
  const size_t bytes = (size_t)w->layers * batch * w->kv_heads * w->room * w->dim * 2;
  const size_t heads = (size_t)batch * w->query_heads * w->dim;
  float *queries = malloc(heads * sizeof *queries);
  uint64_t state = 3;
  for (size_t i = 0; i < heads; ++i) queries[i] = (float)(random_half(&state) % 2001) / 1000.0f - 1.0f;
  w->keys = noise(bytes);
  w->values = noise(bytes);
  w->queries = gpu_new(heads * sizeof *queries, queries);
  w->out = gpu_new(heads * sizeof *queries, NULL);
  make_peaks(w);
  free(queries);
  return w;
}

void bench_world_free(bench_world *w) {
  void *all[] = {w->keys, w->values, w->queries, w->out, w->peaked_max, w->peaked_mass, w->log_sum_exp};
  for (size_t i = 0; i < sizeof all / sizeof *all; ++i) gpu_free(all[i]);
  free(w);
}

struct bench_policies {
  const bench_world *w;
  kvsift_policy_config config;
  kvsift_cuda_policy **list; /* [batch] */
  kvsift_cuda_arenas *arenas;
  float *block_max, *block_mass, *log_sum_exp; /* device: where attend writes, [sequence][query heads][blocks] */
  void **streams;              /* [batch]; null: one for all */
  uint32_t needs;
};

static void check(kvsift_status status, const char *what, const char *sentence) {
  if (status == KVSIFT_OK) return;
  fprintf(stderr, "%s: %s: %s\n", what, kvsift_status_string(status), sentence);
  exit(1);
}
#define MUST(p, i, call) check(call, #call, kvsift_cuda_last_error((p)->list[i]))

static void create_policy(bench_policies *p, uint32_t i) {
  kvsift_cuda_sizes sizes = {.struct_size = sizeof sizes};
  kvsift_error error = {0};
  p->config.error = &error;
  check(kvsift_cuda_policy_sizes(&p->config, &sizes), "sizes", error.message);
  kvsift_cuda_arenas *a = &p->arenas[i];
  *a = (kvsift_cuda_arenas){.struct_size = sizeof *a, .device_bytes = sizes.device, .pinned_bytes = sizes.pinned,
                            .host_bytes = sizes.host};
  a->device = gpu_new(sizes.device, NULL);
  a->pinned = gpu_new_pinned(sizes.pinned);
  a->host = aligned_alloc(KVSIFT_ARENA_ALIGNMENT, (sizes.host + 63) / 64 * 64);
  check(kvsift_cuda_policy_create(&p->config, a, gpu_stream(), &p->list[i]), "create", error.message);
  p->config.error = NULL;
}

static kvsift_view rows_at(const bench_world *w, const void *base, uint32_t layer, uint32_t sequence, uint32_t token) {
  const size_t row = (size_t)w->dim * 2, head = w->room * row;
  kvsift_view view = {.type = KVSIFT_F16, .token_stride = row, .head_stride = head};
  view.data = (const char *)base + ((size_t)layer * w->batch + sequence) * w->kv_heads * head + token * row;
  return view;
}

static kvsift_observation peaks(const bench_policies *p, uint32_t tokens) {
  const bench_world *w = p->w;
  return (kvsift_observation){.struct_size = sizeof(kvsift_observation), .tokens = tokens, .full = 1,
                              .block_stride = blocks_of(w), .block_max = w->peaked_max,
                              .block_mass = w->peaked_mass, .log_sum_exp = w->log_sum_exp};
}

/* The prompt: all keys, and the rows that a method learns from. */
static void read_prompt(bench_policies *p, uint32_t i) {
  const bench_world *w = p->w;
  kvsift_policy_info info = {.struct_size = sizeof info};
  MUST(p, i, kvsift_cuda_policy_get_info(p->list[i], &info));
  p->needs = info.needs;
  const uint32_t rows = (info.needs & KVSIFT_NEEDS_ATTENTION) != 0 ? 64 : 0;
  for (uint32_t layer = 0; layer < w->layers; ++layer) {
    const kvsift_view keys = rows_at(w, w->keys, layer, i, 0), values = rows_at(w, w->values, layer, i, 0);
    MUST(p, i, kvsift_cuda_observe_keys(p->list[i], layer, NULL, 0, w->tokens, &keys, &values, gpu_stream()));
  }
  for (uint32_t layer = 0; layer < w->layers; ++layer) {
    for (uint32_t r = 0; r < rows; ++r) {
      const kvsift_observation o = peaks(p, w->tokens - rows + r + 1);
      MUST(p, i, kvsift_cuda_observe_attention(p->list[i], layer, NULL, &o, gpu_stream()));
    }
  }
  MUST(p, i, kvsift_cuda_advance(p->list[i], w->tokens, gpu_stream()));
  gpu_wait();
}

bench_policies *bench_policies_new(const bench_world *w, const kvsift_policy_config *config) {
  bench_policies *p = calloc(1, sizeof *p);
  const size_t entries = (size_t)w->batch * w->query_heads * blocks_of(w) * sizeof(float);
  *p = (bench_policies){.w = w, .config = *config, .list = calloc(w->batch, sizeof *p->list),
                        .arenas = calloc(w->batch, sizeof *p->arenas), .block_max = gpu_new(entries, NULL),
                        .block_mass = gpu_new(entries, NULL), .log_sum_exp = gpu_new(w->batch * w->query_heads * sizeof(float), NULL)};
  if (!gpu_is_mock() && w->batch > 1) p->streams = calloc(w->batch, sizeof *p->streams);
  for (uint32_t i = 0; i < w->batch; ++i) {
    if (p->streams != NULL) p->streams[i] = gpu_new_stream();
    create_policy(p, i);
    read_prompt(p, i);
  }
  return p;
}

void bench_policies_free(bench_policies *p) {
  gpu_wait();
  for (uint32_t i = 0; i < p->w->batch; ++i) {
    MUST(p, i, kvsift_cuda_policy_destroy(p->list[i]));
    gpu_free(p->arenas[i].device);
    gpu_free_pinned(p->arenas[i].pinned);
    free(p->arenas[i].host);
    if (p->streams != NULL) gpu_free_stream(p->streams[i]);
  }
  free(p->streams);
  gpu_free(p->block_max);
  gpu_free(p->block_mass);
  gpu_free(p->log_sum_exp);
  free(p->list);
  free(p->arenas);
  free(p);
}

/* One layer of one sequence. Lengths are left to the device, so that a graph of it can be replayed. */
static void put_layer(bench_policies *p, uint32_t layer, uint32_t i, uint32_t parts, void *stream) {
  const bench_world *w = p->w;
  kvsift_cuda_policy *policy = p->list[i];
  const size_t heads = (size_t)i * w->query_heads * w->dim, own = (size_t)i * w->query_heads * blocks_of(w);
  const kvsift_query query = {.struct_size = sizeof query,
                              .view = {.data = w->queries + heads, .type = KVSIFT_F32, .head_stride = w->dim * sizeof(float)}};
  const kvsift_cache cache = {.struct_size = sizeof cache, .keys = rows_at(w, w->keys, layer, i, 0),
                              .values = rows_at(w, w->values, layer, i, 0)};
  const kvsift_view keys = rows_at(w, w->keys, layer, i, w->tokens), values = rows_at(w, w->values, layer, i, w->tokens);
  const bool learns = (p->needs & KVSIFT_NEEDS_ATTENTION) != 0;
  if ((parts & BENCH_KEYS) != 0) {
    MUST(p, i, kvsift_cuda_observe_keys(policy, layer, NULL, KVSIFT_CUDA_NEXT, 1, &keys, &values, stream));
  }
  if ((parts & BENCH_SELECT) != 0) MUST(p, i, kvsift_cuda_select_blocks(policy, layer, &query, NULL, stream));
  if ((parts & BENCH_ATTEND) != 0) {
    kvsift_observation o = {.struct_size = sizeof o, .block_stride = blocks_of(w), .block_max = p->block_max + own,
                            .block_mass = p->block_mass + own, .log_sum_exp = p->log_sum_exp + (size_t)i * w->query_heads};
    MUST(p, i, kvsift_cuda_attend(policy, layer, &query, &cache, w->out + heads, learns ? &o : NULL, stream));
  }
  if ((parts & BENCH_OBSERVE) != 0 && learns) {
    const kvsift_observation o = peaks(p, 0);
    MUST(p, i, kvsift_cuda_observe_attention(policy, layer, NULL, &o, stream));
  }
}

/* Sequences side by side in streams of their own, layer by layer. */
static void put_step(bench_policies *p, uint32_t parts) {
  for (uint32_t layer = 0; layer < p->w->layers; ++layer) {
    for (uint32_t i = 1; i < p->w->batch && p->streams != NULL; ++i) gpu_follow(p->streams[i], gpu_stream());
    for (uint32_t i = 0; i < p->w->batch; ++i) {
      put_layer(p, layer, i, parts, i == 0 || p->streams == NULL ? gpu_stream() : p->streams[i]);
    }
    for (uint32_t i = 1; i < p->w->batch && p->streams != NULL; ++i) gpu_follow(gpu_stream(), p->streams[i]);
  }
  for (uint32_t i = 0; i < p->w->batch; ++i) MUST(p, i, kvsift_cuda_advance(p->list[i], 1, gpu_stream()));
}

double bench_time(bench_policies *p, uint32_t parts, uint32_t replays, bool graph) {
  CUgraphExec exec = NULL;
  if (graph) {
    gpu_begin_capture();
    put_step(p, parts);
    exec = gpu_end_capture();
    gpu_replay(exec); /* the first upload is not timed */
    gpu_wait();
  }
  gpu_begin_clock();
  for (uint32_t r = 0; r < replays; ++r) {
    if (graph) gpu_replay(exec);
    else put_step(p, parts);
  }
  const double milliseconds = gpu_end_clock();
  if (graph) {
    for (uint32_t i = 0; i < p->w->batch; ++i) MUST(p, i, kvsift_cuda_replayed(p->list[i], replays + 1, 1));
    gpu_free_graph(exec);
  }
  return 1e3 * milliseconds / replays / p->w->layers;
}

double bench_copy_bandwidth(bool tiny) {
  const size_t bytes = tiny ? 1u << 16 : 1u << 30;
  const uint32_t times = tiny ? 1 : 20;
  void *from = gpu_new(bytes, NULL), *to = gpu_new(bytes, NULL);
  gpu_copy(to, from, bytes);
  gpu_wait();
  gpu_begin_clock();
  for (uint32_t i = 0; i < times; ++i) gpu_copy(to, from, bytes);
  const double milliseconds = gpu_end_clock();
  gpu_free(from);
  gpu_free(to);
  return 2.0 * (double)bytes * times / milliseconds / 1e6;
}

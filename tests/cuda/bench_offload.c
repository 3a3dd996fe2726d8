/* A cache in pinned host memory behind a device, at the geometry of Llama-3.1-8B (8 KV heads, head dimension 128, float16):
 * what a layer's blocks take to come, against copying all of the layer, layer after layer of a step; and whole steps of
 * page statistics with moments, budget 1024, against the copy alone, which full attention would need each time: as float16 and
 * as int8, with checksums, and with a cap of 16 blocks of all KV heads that a layer's step waits for.
 *
 *     bench_offload [--quick] [--json FILE] [--seconds N]
 *
 * Each KV head attends to 64 blocks of 16 tokens; the fast tier holds an eighth of the cache. `scattered`: all 64 are new;
 * `step`: one in ten is, as from one token to the next. Nothing is prefetched: prefetches take the same transfers, behind
 * the caller's back. --quick: tiny shapes, for the emulator, whose times mean nothing. --seconds: nothing is begun after so many.
 * The file is whole after each form, wherever the program is ended. */
#define _POSIX_C_SOURCE 199309L
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <kvsift/kvsift_cuda.h>

#include "bench_offload_steps.h"
#include "gpu.h"

enum { KV_HEADS = 8, BLOCK = 16, CHOSEN = 64, MOST = CHOSEN + 8, LAYERS = 4 };

typedef struct bench {
  uint32_t tokens, dim, chosen, steps;
  kvsift_cuda_store *store;
  kvsift_cuda_arenas arenas;
  uint64_t record;                       /* bytes */
  uint32_t blocks[KV_HEADS][CHOSEN];
  kvsift_range ranges[KV_HEADS][MOST];
  uint32_t counts[KV_HEADS];
  uint64_t random;
} bench;

static void check(const bench *b, kvsift_status status) {
  if (status == KVSIFT_OK) return;
  fprintf(stderr, "%s: %s\n", kvsift_status_string(status), kvsift_cuda_store_last_error(b->store));
  exit(1);
}

static uint32_t below(bench *b, uint32_t n) {
  b->random = b->random * 6364136223846793005u + 1442695040888963407u;
  return (uint32_t)((b->random >> 33) % n);
}

static void create(bench *b) {
  kvsift_error error = {0};
  kvsift_cuda_sizes sizes = {.struct_size = sizeof sizes};
  kvsift_cuda_store_config c = {.struct_size = sizeof c};
  check(b, kvsift_cuda_store_config_init(&c));
  c.layers = LAYERS, c.kv_heads = KV_HEADS, c.head_dim = b->dim, c.max_tokens = b->tokens, c.local_tokens = BLOCK;
  c.fast_blocks = b->tokens / BLOCK / 8 + b->chosen, c.error = &error;
  if (kvsift_cuda_store_sizes(&c, &sizes) != KVSIFT_OK) exit(fprintf(stderr, "%s\n", error.message));
  b->arenas = (kvsift_cuda_arenas){.struct_size = sizeof b->arenas, .device_bytes = sizes.device,
                                   .pinned_bytes = sizes.pinned, .host_bytes = sizes.host};
  b->arenas.device = gpu_new(sizes.device, NULL);
  b->arenas.pinned = gpu_new_pinned(sizes.pinned);
  b->arenas.host = aligned_alloc(KVSIFT_ARENA_ALIGNMENT, sizes.host);
  if (kvsift_cuda_store_create(&c, &b->arenas, gpu_stream(), &b->store) != KVSIFT_OK) {
    exit(fprintf(stderr, "%s\n", error.message));
  }
  b->record = (uint64_t)BLOCK * b->dim * 2 * 2;
}

/* The same rows for each stretch of the prompt. */
static void read_prompt(bench *b) {
  const uint32_t stretch = 1024;
  const uint64_t row = b->dim * 2ull, bytes = KV_HEADS * stretch * row;
  void *zeros = calloc(1, bytes), *rows = gpu_new(bytes, zeros);
  const kvsift_view view = {.data = rows, .type = KVSIFT_F16, .token_stride = row, .head_stride = stretch * row};
  for (uint32_t first = 0; first < b->tokens; first += stretch) {
    const uint32_t count = b->tokens - first < stretch ? b->tokens - first : stretch;
    for (uint32_t layer = 0; layer < LAYERS; ++layer) {
      check(b, kvsift_cuda_store_append(b->store, layer, first, count, &view, &view, gpu_stream()));
    }
  }
  gpu_wait();
  check(b, kvsift_cuda_store_flush(b->store));
  gpu_free(rows);
  free(zeros);
}

static int ascending(const void *a, const void *b) {
  const uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
  return (x > y) - (x < y);
}

/* New blocks for one in `every` of the chosen ones; lists as a selection has them. */
static kvsift_selection choose(bench *b, uint32_t every) {
  for (uint32_t h = 0; h < KV_HEADS; ++h) {
    for (uint32_t i = 0; i < b->chosen; ++i) {
      if (below(b, every) == 0) b->blocks[h][i] = below(b, b->tokens / BLOCK);
    }
    uint32_t sorted[CHOSEN], end = 0;
    memcpy(sorted, b->blocks[h], sizeof sorted);
    qsort(sorted, b->chosen, sizeof *sorted, ascending);
    b->counts[h] = 0;
    for (uint32_t i = 0; i < b->chosen; ++i) {
      const uint32_t begin = sorted[i] * BLOCK;
      if (begin < end) continue;
      end = begin + BLOCK;
      b->ranges[h][b->counts[h]++] = (kvsift_range){begin, end};
    }
  }
  return (kvsift_selection){.struct_size = sizeof(kvsift_selection), .tokens = b->tokens, .lists = KV_HEADS,
                            .block_tokens = BLOCK, .range_stride = MOST, .ranges = b->ranges[0], .range_counts = b->counts};
}

typedef struct figure {
  double us, gb_per_s; /* a step; of what was read */
} figure;

static figure resolve_steps(bench *b, uint32_t every) {
  kvsift_store_stats before = {.struct_size = sizeof before}, after = before;
  kvsift_cache cache = {.struct_size = sizeof cache};
  check(b, kvsift_cuda_store_get_stats(b->store, &before));
  gpu_begin_clock();
  for (uint32_t i = 0; i < b->steps; ++i) {
    kvsift_selection s = choose(b, every);
    check(b, kvsift_cuda_store_resolve(b->store, i % LAYERS, &s, &cache, gpu_stream()));
  }
  const double milliseconds = gpu_end_clock();
  check(b, kvsift_cuda_store_get_stats(b->store, &after));
  const double bytes = (double)(after.bytes_read - before.bytes_read);
  return (figure){1e3 * milliseconds / b->steps, bytes / milliseconds / 1e6};
}

/* All of the layer by the copy engine. */
static figure copy_all(bench *b) {
  const uint64_t bytes = (uint64_t)(b->tokens / BLOCK) * KV_HEADS * b->record;
  void *to = gpu_new(bytes, NULL);
  gpu_write(to, b->arenas.pinned, bytes);
  gpu_begin_clock();
  for (uint32_t i = 0; i < b->steps; ++i) gpu_write(to, b->arenas.pinned, bytes);
  const double milliseconds = gpu_end_clock() / b->steps;
  gpu_free(to);
  return (figure){1e3 * milliseconds, (double)bytes / milliseconds / 1e6};
}

/* An eighth of the cache in device memory, but for the last. */
static const offload_form forms[] = {
    {"float16", 8, false, KVSIFT_STORE_NO_LIMIT, false},
    {"float16, checksums", 8, false, KVSIFT_STORE_NO_LIMIT, true},
    {"float16, 16 late blocks", 8, false, 16, false},
    {"int8", 8, true, KVSIFT_STORE_NO_LIMIT, false},
    {"int8, 16 late blocks, sums", 8, true, 16, true},
    {"float16, all resident", 1, false, KVSIFT_STORE_NO_LIMIT, false},
};

typedef struct request {
  bool quick;
  FILE *json;  /* null: none */
  double end;  /* on the clock of seconds_now; 0: never */
} request;

static double seconds_now(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static bool is_over(const request *r) { return r->end > 0 && seconds_now() > r->end; }

/* What closes the file as it stands; the next row is written over it. */
static void close_rows(FILE *json) {
  const long at = ftell(json);
  fprintf(json, "]}\n  ]\n}\n");
  fflush(json);
  fseek(json, at, SEEK_SET);
}

static void run_forms(const request *r, uint32_t tokens, double copy_us) {
  for (uint32_t i = 0; i < sizeof forms / sizeof *forms; ++i) {
    if (is_over(r)) {
      printf("left out: %u tokens, %s\n", tokens, forms[i].name);
      continue;
    }
    const offload_steps whole = bench_offload_steps(tokens, r->quick, forms[i]);
    printf("                a whole layer step, %-26s %8.1f us (%4.1fx; %3.0f %% hits, %2.0f %% left out, %6.0f KiB fetched)\n",
           forms[i].name, whole.us, copy_us / whole.us, 100 * whole.hits, 100 * whole.dropped, whole.read_kb);
    if (r->json == NULL) continue;
    fprintf(r->json, "%s\n      {\"form\": \"%s\", \"us\": %.2f, \"copy_over_step\": %.2f, \"hits\": %.4f, \"dropped\": %.4f, "
            "\"read_kib\": %.1f}", i == 0 ? "" : ",", forms[i].name, whole.us, copy_us / whole.us, whole.hits, whole.dropped,
            whole.read_kb);
    close_rows(r->json);
  }
}

static void run(const request *r, uint32_t tokens, bool first) {
  const bool quick = r->quick;
  bench *b = calloc(1, sizeof *b);
  *b = (bench){.tokens = tokens, .dim = quick ? 16 : 128, .chosen = quick ? 8 : CHOSEN, .steps = quick ? 2 : 50, .random = 5};
  create(b);
  read_prompt(b);
  const figure all = copy_all(b);
  choose(b, 1);
  resolve_steps(b, 1); /* not timed: what is done once, at a kernel's first launch */
  const figure scattered = resolve_steps(b, 1), step = resolve_steps(b, 10);
  printf("%7u tokens: all of a layer %9.1f us (%5.1f GB/s), scattered blocks %8.1f us (%5.1f GB/s, %3.0f %% of the copy), "
         "step %8.1f us, %5.1fx\n", tokens, all.us, all.gb_per_s, scattered.us, scattered.gb_per_s,
         100 * scattered.gb_per_s / all.gb_per_s, step.us, all.us / step.us);
  gpu_wait();
  check(b, kvsift_cuda_store_destroy(b->store));
  gpu_free(b->arenas.device);
  gpu_free_pinned(b->arenas.pinned);
  free(b->arenas.host);
  free(b);
  if (r->json != NULL) {
    fprintf(r->json, "%s\n    {\"tokens\": %u, \"layer_copy_us\": %.2f, \"copy_gb_per_s\": %.2f, \"scattered_us\": %.2f, "
            "\"gather_gb_per_s\": %.2f, \"step_us\": %.2f, \"copy_over_step\": %.2f, \"whole_steps\": [", first ? "" : ",",
            tokens, all.us, all.gb_per_s, scattered.us, scattered.gb_per_s, step.us, all.us / step.us);
    close_rows(r->json);
  }
  run_forms(r, tokens, all.us);
  if (r->json != NULL) fprintf(r->json, "]}");
}

int main(int argc, char **argv) {
  static const uint32_t sizes[] = {32768, 65536, 131072};
  request r = {0};
  const char *path = NULL;
  for (int i = 1; i < argc; ++i) {
    if (strcmp(argv[i], "--quick") == 0) r.quick = true;
    else if (strcmp(argv[i], "--json") == 0 && i + 1 < argc) path = argv[++i];
    else if (strcmp(argv[i], "--seconds") == 0 && i + 1 < argc) r.end = seconds_now() + strtod(argv[++i], NULL);
    else return fprintf(stderr, "usage: bench_offload [--quick] [--json FILE] [--seconds N]\n"), 2;
  }
  if (!gpu_open()) return 77;
  if (path != NULL && (r.json = fopen(path, "w")) == NULL) return fprintf(stderr, "%s cannot be written\n", path), 1;
  if (r.json != NULL) {
    fprintf(r.json, "{\n  \"device\": \"%s\",\n  \"emulated\": %s,\n  \"runs\": [", gpu_name(), gpu_is_mock() ? "true" : "false");
  }
  for (uint32_t i = 0; i < (r.quick ? 1 : 3) && !is_over(&r); ++i) run(&r, r.quick ? 1024 : sizes[i], i == 0);
  if (r.json != NULL) {
    fprintf(r.json, "\n  ]\n}\n");
    fclose(r.json);
  }
  return 0;
}

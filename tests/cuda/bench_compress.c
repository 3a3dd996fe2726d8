/* BalanceKV of a layer on the device, at the geometry of Llama-3.1-8B (8 KV heads, head dimension 128, float16), two halvings:
 * the practical form's exact matrices against those by cuBLASLt, and uniform sampling, which has none. What the forms
 * with matrices take beyond it is products, exponentials and the walk.
 *
 *     bench_compress [--quick] [--json FILE]
 *
 * --quick: tiny shapes, for the emulator, whose times mean nothing. */
#include <kvsift/kvsift_cuda.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gpu.h"

enum { CHUNK = 1 << 20 }; /* random elements, repeated */

typedef struct bench {
  kvsift_error error;
  kvsift_cuda_arenas arenas;
  kvsift_cuda_policy *policy; /* lends its kernels */
  uint32_t heads, dim, tokens, repeats;
  kvsift_cache cache;
} bench;

static bool works(const bench *b, kvsift_status status) {
  if (status == KVSIFT_OK) return true;
  fprintf(stderr, "%s: %s\n", kvsift_status_string(status), b->error.message);
  return false;
}

static void must(const bench *b, kvsift_status status) {
  if (!works(b, status)) exit(1);
}

static void create(bench *b) {
  kvsift_policy_config c = {.struct_size = sizeof c};
  kvsift_cuda_sizes sizes = {.struct_size = sizeof sizes};
  must(b, kvsift_policy_config_init(&c, KVSIFT_METHOD_FULL));
  c.layers = 1, c.query_heads = c.kv_heads = 1, c.head_dim = 16, c.max_tokens = 64, c.error = &b->error;
  must(b, kvsift_cuda_policy_sizes(&c, &sizes));
  b->arenas = (kvsift_cuda_arenas){.struct_size = sizeof b->arenas, .device_bytes = sizes.device,
                                   .pinned_bytes = sizes.pinned, .host_bytes = sizes.host};
  b->arenas.device = gpu_new(sizes.device, NULL);
  b->arenas.pinned = gpu_new_pinned(sizes.pinned);
  b->arenas.host = aligned_alloc(KVSIFT_ARENA_ALIGNMENT, sizes.host);
  must(b, kvsift_cuda_policy_create(&c, &b->arenas, gpu_stream(), &b->policy));
}

static void destroy(bench *b) {
  gpu_wait();
  kvsift_cuda_policy_destroy(b->policy);
  gpu_free(b->arenas.device);
  gpu_free_pinned(b->arenas.pinned);
  free(b->arenas.host);
}

/* Random float16 within 2. */
static void *random_rows(uint64_t elements) {
  uint16_t *chunk = malloc(CHUNK * sizeof *chunk);
  char *rows = gpu_new(elements * sizeof *chunk, NULL);
  uint64_t state = 1;
  for (uint32_t i = 0; i < CHUNK; ++i) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    chunk[i] = (uint16_t)(0x3800 + (state >> 40 & 0x87ff)); /* 0.5 to 2, either sign */
  }
  for (uint64_t first = 0; first < elements; first += CHUNK) {
    const uint64_t count = elements - first < CHUNK ? elements - first : CHUNK;
    gpu_write(rows + first * sizeof *chunk, chunk, count * sizeof *chunk);
  }
  free(chunk);
  return rows;
}

static void fill_cache(bench *b, uint32_t tokens) {
  const uint64_t row = b->dim * sizeof(uint16_t);
  const kvsift_view rows = {.type = KVSIFT_F16, .token_stride = row, .head_stride = tokens * row};
  b->tokens = tokens;
  b->cache = (kvsift_cache){.struct_size = sizeof b->cache, .tokens = tokens, .keys = rows, .values = rows};
  b->cache.keys.data = random_rows((uint64_t)b->heads * tokens * b->dim);
  b->cache.values.data = random_rows((uint64_t)b->heads * tokens * b->dim);
}

static void empty_cache(bench *b) {
  gpu_free((void *)b->cache.keys.data);
  gpu_free((void *)b->cache.values.data);
}

/* Microseconds, and in *room_bytes what it takes beside the cache; negative where the form cannot be had here. */
static double time_form(bench *b, uint32_t form, uint32_t group, uint64_t *room_bytes) {
  kvsift_balance_config c = {.struct_size = sizeof c};
  must(b, kvsift_balance_config_init(&c, form));
  c.head_dim = b->dim, c.group_tokens = group, c.error = &b->error;
  const uint32_t capacity = b->tokens >> c.halvings;
  must(b, kvsift_cuda_balance_room(&c, b->heads, b->tokens, room_bytes));
  void *room = gpu_new(*room_bytes, NULL), *index = gpu_new(4ull * b->heads * capacity, NULL);
  void *weight = gpu_new(4ull * b->heads * capacity, NULL), *counts = gpu_new(4ull * b->heads, NULL);
  double microseconds = -1;
  if (works(b, kvsift_cuda_balance_prepare(b->policy, &c, b->heads, b->tokens, room, *room_bytes, gpu_stream()))) {
    for (uint32_t i = 0; i <= b->repeats; ++i) {
      if (i == 1) gpu_begin_clock();
      must(b, kvsift_cuda_balance_compress(b->policy, &c, &b->cache, 0, b->heads, (kvsift_range){0, b->tokens}, room, *room_bytes,
                                           index, weight, capacity, counts, gpu_stream()));
    }
    microseconds = 1e3 * gpu_end_clock() / b->repeats;
  }
  void *all[] = {room, index, weight, counts};
  for (size_t i = 0; i < sizeof all / sizeof *all; ++i) gpu_free(all[i]);
  return microseconds;
}

static void run(bench *b, uint32_t tokens, uint32_t group, FILE *json, const char *separator) {
  static const struct {
    uint32_t form;
    const char *name;
  } forms[] = {{KVSIFT_BALANCE_UNIFORM, "uniform"}, {KVSIFT_BALANCE_PRACTICAL, "practical"}, {KVSIFT_BALANCE_CUBLAS, "cublas"}};
  if (json != NULL) fprintf(json, "%s\n    {\"tokens\": %u, \"group\": %u", separator, tokens, group);
  printf("%7u tokens, groups of %u:", tokens, group);
  for (size_t f = 0; f < sizeof forms / sizeof *forms; ++f) {
    uint64_t room;
    const double us = time_form(b, forms[f].form, group, &room);
    if (us < 0) {
      printf("  %s: not here", forms[f].name);
      continue;
    }
    printf("  %s %.1f us (%.0f MiB)", forms[f].name, us, (double)room / (1 << 20));
    if (json != NULL) fprintf(json, ", \"%s_us\": %.2f, \"%s_room\": %llu", forms[f].name, us, forms[f].name, (unsigned long long)room);
  }
  printf("\n");
  if (json != NULL) fprintf(json, "}");
}

int main(int argc, char **argv) {
  const char *path = NULL;
  bool quick = false;
  for (int i = 1; i < argc; ++i) {
    if (strcmp(argv[i], "--quick") == 0) quick = true;
    else if (strcmp(argv[i], "--json") == 0 && i + 1 < argc) path = argv[++i];
    else return fprintf(stderr, "usage: bench_compress [--quick] [--json FILE]\n"), 2;
  }
  if (!gpu_open()) return 77;
  FILE *json = path == NULL ? NULL : fopen(path, "w");
  if (path != NULL && json == NULL) return fprintf(stderr, "%s cannot be written\n", path), 1;
  bench b = {.heads = quick ? 2 : 8, .dim = quick ? 16 : 128, .repeats = quick ? 1 : 10};
  create(&b);
  if (json != NULL) {
    fprintf(json, "{\n  \"device\": \"%s\",\n  \"emulated\": %s,\n  \"runs\": [", gpu_name(), gpu_is_mock() ? "true" : "false");
  }
  const uint32_t most = quick ? 512 : 131072;
  const char *separator = "";
  for (uint32_t tokens = quick ? 512 : 8192; tokens <= most; tokens *= 4) {
    fill_cache(&b, tokens);
    for (uint32_t group = 256; group <= (quick ? 256u : 512u); group *= 2, separator = ",") run(&b, tokens, group, json, separator);
    empty_cache(&b);
  }
  if (json != NULL) {
    fprintf(json, "\n  ]\n}\n");
    fclose(json);
  }
  destroy(&b);
  return 0;
}

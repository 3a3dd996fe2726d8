#include "device_store.h"

#include <stdlib.h>
#include <string.h>

kvsift_cuda_store_config small_config(void) {
  kvsift_cuda_store_config c = {.struct_size = sizeof c};
  assert_int_equal(kvsift_cuda_store_config_init(&c), KVSIFT_OK);
  c.layers = 1, c.kv_heads = 2, c.query_heads = 4, c.head_dim = 32, c.max_tokens = 400, c.fast_blocks = 12;
  c.local_tokens = 32, c.max_ranges = 64;
  return c;
}

kvsift_selection block_of_each(fixture *f, uint32_t block) {
  for (uint32_t i = 0; i < f->config.kv_heads; ++i) {
    f->ranges[(size_t)i * f->stride] = (kvsift_range){block * 16, block * 16 + 16};
    f->counts[i] = 1;
  }
  return (kvsift_selection){.struct_size = sizeof(kvsift_selection),
                            .tokens = f->tokens[0],
                            .lists = f->config.kv_heads,
                            .block_tokens = 16,
                            .range_stride = f->stride,
                            .ranges = f->ranges,
                            .range_counts = f->counts};
}

static void fill(uint8_t *to, uint64_t bytes, test_random *r) {
  for (uint64_t i = 0; i < bytes; ++i) to[i] = (uint8_t)(random_below(r, 256) & 0x3bu); /* no NaN in any type */
}

static void take_arenas(fixture *f) {
  kvsift_cuda_sizes sizes = {.struct_size = sizeof sizes};
  expect(kvsift_cuda_store_sizes(&f->config, &sizes) == KVSIFT_OK, "sizes: %s", f->error.message);
  f->arenas = (kvsift_cuda_arenas){.struct_size = sizeof f->arenas,
                                   .device_bytes = sizes.device,
                                   .pinned_bytes = sizes.pinned,
                                   .host_bytes = sizes.host};
  f->arenas.device = gpu_new(sizes.device, NULL);
  f->arenas.pinned = gpu_new_pinned(sizes.pinned);
  f->arenas.host = aligned_alloc(KVSIFT_ARENA_ALIGNMENT, sizes.host);
  memset(f->arenas.host, 0xa5, sizes.host);
}

fixture *fixture_new(kvsift_cuda_store_config config, test_random *r) {
  fixture *f = calloc(1, sizeof *f);
  f->config = config;
  f->config.error = &f->error;
  take_arenas(f);
  f->row_bytes = config.head_dim * (config.type == KVSIFT_F32 ? 4u : 2u);
  f->head_bytes = f->row_bytes * config.max_tokens;
  f->layer_bytes = f->head_bytes * config.kv_heads;
  const uint64_t tokens = config.block_tokens, bytes = 2 * tokens * (config.storage == KVSIFT_I8 ? config.head_dim : f->row_bytes);
  f->record_bytes = ((bytes + 15) / 16 * 16 + (config.storage == KVSIFT_I8 ? 8 * tokens : 0) + 63) / 64 * 64;
  f->blocks = (config.max_tokens + config.block_tokens - 1) / config.block_tokens;
  const uint64_t all = f->layer_bytes * config.layers;
  f->keys = malloc(all), f->values = malloc(all);
  fill(f->keys, all, r), fill(f->values, all, r);
  f->device_keys = gpu_new(all, f->keys), f->device_values = gpu_new(all, f->values);
  f->stride = config.max_tokens;
  f->ranges = calloc((size_t)config.query_heads * f->stride, sizeof *f->ranges);
  f->counts = calloc(config.query_heads, sizeof *f->counts);
  f->slots = malloc(f->arenas.device_bytes), f->table = malloc((size_t)config.kv_heads * f->blocks * sizeof *f->table);
  return f;
}

void fine(const fixture *f, kvsift_status status) {
  expect(status == KVSIFT_OK, "%s", kvsift_cuda_store_last_error(f->store));
}

void create(fixture *f) {
  const kvsift_status status = kvsift_cuda_store_create(&f->config, &f->arenas, gpu_stream(), &f->store);
  expect(status == KVSIFT_OK, "create: %s", f->error.message);
}

void fixture_free(fixture *f) {
  gpu_wait();
  if (f->store != NULL) assert_int_equal(kvsift_cuda_store_destroy(f->store), KVSIFT_OK);
  gpu_free(f->arenas.device);
  gpu_free_pinned(f->arenas.pinned);
  gpu_free(f->device_keys);
  gpu_free(f->device_values);
  void *all[] = {f->arenas.host, f->keys, f->values, f->ranges, f->counts, f->slots, f->table, f};
  for (size_t i = 0; i < sizeof all / sizeof *all; ++i) free(all[i]);
}

kvsift_view view_of(const fixture *f, const uint8_t *base, uint32_t layer, uint32_t token) {
  return (kvsift_view){.data = base + layer * f->layer_bytes + token * f->row_bytes, .type = f->config.type,
                       .token_stride = f->row_bytes, .head_stride = f->head_bytes};
}

kvsift_status append(fixture *f, uint32_t layer, uint32_t tokens) {
  const kvsift_view keys = view_of(f, f->device_keys, layer, f->tokens[layer]);
  const kvsift_view values = view_of(f, f->device_values, layer, f->tokens[layer]);
  const kvsift_status status =
      kvsift_cuda_store_append(f->store, layer, f->tokens[layer], tokens, &keys, &values, gpu_stream());
  if (status == KVSIFT_OK) f->tokens[layer] += tokens;
  return status;
}

uint8_t *record_of(const fixture *f, uint32_t layer, uint32_t head, uint32_t block) {
  return (uint8_t *)f->arenas.pinned + ((uint64_t)(layer * f->config.kv_heads + head) * f->blocks + block) * f->record_bytes;
}

/* What the table calls resident has the right bytes. */
void check_resident(fixture *f, uint32_t layer, const kvsift_cache *cache) {
  const kvsift_cuda_store_config *c = &f->config;
  const uint64_t keys = f->row_bytes * c->block_tokens;
  gpu_read(f->table, cache->block_table, (size_t)c->kv_heads * f->blocks * sizeof *f->table);
  const uint32_t per_layer =
      c->kv_heads * (layer < c->resident_layers || c->fast_blocks > f->blocks ? f->blocks : c->fast_blocks);
  gpu_read(f->slots, cache->keys.data, per_layer * f->record_bytes);
  for (uint32_t h = 0; h < c->kv_heads; ++h) {
    for (uint32_t b = 0; b < f->blocks; ++b) {
      const int32_t slot = f->table[h * cache->block_table_stride + b];
      const uint32_t first = b * c->block_tokens;
      if (slot < 0) continue;
      expect((uint32_t)slot < per_layer && first < f->tokens[layer], "layer %u, block %u is in slot %d", layer, b,
             slot);
      const uint32_t left = f->tokens[layer] - first, rows = left < c->block_tokens ? left : c->block_tokens;
      const uint64_t at = layer * f->layer_bytes + h * f->head_bytes + first * f->row_bytes;
      const uint8_t *record = f->slots + (uint32_t)slot * f->record_bytes;
      expect(memcmp(record, f->keys + at, rows * f->row_bytes) == 0 &&
                 memcmp(record + keys, f->values + at, rows * f->row_bytes) == 0,
             "layer %u, head %u, block %u differs", layer, h, b);
    }
  }
}

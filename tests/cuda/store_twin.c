#include "store_twin.h"

#include <stdlib.h>
#include <string.h>

static uint32_t element_bytes(kvsift_type type) { return type == KVSIFT_F32 ? 4 : type == KVSIFT_I8 ? 1 : 2; }

/* Magnitudes of 1/4 to 2 in any type. */
static void make_rows(twin *t, uint32_t which) {
  const kvsift_type type = t->form.type;
  const size_t count = (size_t)LAYERS * TOKENS * KV_HEADS * DIM, bytes = count * element_bytes(type);
  t->rows[which] = malloc(bytes), t->scales[which] = malloc(count / DIM * sizeof(float));
  for (size_t i = 0; i < count; ++i) {
    const uint32_t bits = random_bits(&t->random);
    const uint16_t half = (uint16_t)((bits & 0x83ffu) | (13u + (bits >> 16) % 3u) << 10);
    const uint16_t bfloat = (uint16_t)((bits & 0x807fu) | (125u + (bits >> 16) % 3u) << 7);
    const uint32_t single = (bits & 0x807fffffu) | (125u + (bits >> 23 & 0xffu) % 3u) << 23;
    if (type == KVSIFT_F32) memcpy(t->rows[which] + 4 * i, &single, 4);
    else if (type == KVSIFT_I8) t->rows[which][i] = (uint8_t)(int8_t)((int32_t)(bits % 255) - 127);
    else memcpy(t->rows[which] + 2 * i, type == KVSIFT_F16 ? &half : &bfloat, 2);
  }
  for (size_t i = 0; i < count / DIM; ++i) t->scales[which][i] = 0.01f + 0.01f * random_unit(&t->random);
  /* A row of zeros and one of subnormals. */
  memset(t->rows[which], 0, DIM * element_bytes(type));
  for (size_t i = 0; i < DIM && type != KVSIFT_I8; ++i) {
    const uint32_t smallest = 1;
    memcpy(t->rows[which] + (DIM + i) * element_bytes(type), &smallest, element_bytes(type));
  }
  t->device_rows[which] = gpu_new(bytes, t->rows[which]);
  t->device_scales[which] = gpu_new(count / DIM * sizeof(float), t->scales[which]);
}

kvsift_view twin_view(const twin *t, uint32_t which, uint32_t layer, uint32_t first, bool on_device) {
  const uint64_t row = DIM * element_bytes(t->form.type), at = ((uint64_t)layer * TOKENS + first) * KV_HEADS;
  kvsift_view v = {.type = t->form.type, .token_stride = KV_HEADS * row, .head_stride = row};
  v.data = (on_device ? t->device_rows[which] : t->rows[which]) + at * row;
  if (v.type != KVSIFT_I8) return v;
  v.scales = (on_device ? t->device_scales[which] : t->scales[which]) + at;
  v.scale_token_stride = KV_HEADS * sizeof(float), v.scale_head_stride = sizeof(float);
  return v;
}

static void make_policies(twin *t) {
  kvsift_error error = {0};
  kvsift_policy_config c = {.struct_size = sizeof c};
  kvsift_cuda_sizes sizes = {.struct_size = sizeof sizes};
  uint64_t bytes = 0;
  assert_int_equal(kvsift_policy_config_init(&c, t->form.method), KVSIFT_OK);
  c.layers = LAYERS, c.query_heads = HEADS, c.kv_heads = KV_HEADS, c.head_dim = DIM, c.max_tokens = TOKENS;
  c.budget_tokens = 128, c.sink_tokens = 16, c.local_tokens = 32, c.dense_layers = t->form.everything == 1;
  c.dense_tokens = t->form.everything == 2 ? PROMPT + 5 : KVSIFT_DENSE_OFF, c.grouping = t->form.grouping;
  c.tail = t->form.tail, c.error = &error;
  expect(kvsift_policy_arena_size(&c, &bytes, NULL) == KVSIFT_OK, "%s", error.message);
  t->memory[0] = aligned_alloc(4096, (bytes + 4095) / 4096 * 4096);
  expect(kvsift_policy_create(&c, t->memory[0], bytes, &t->policy) == KVSIFT_OK, "%s", error.message);
  expect(kvsift_cuda_policy_sizes(&c, &sizes) == KVSIFT_OK, "%s", error.message);
  const kvsift_cuda_arenas a = {.struct_size = sizeof a, .device = t->memory[1] = gpu_new(sizes.device, NULL),
                                .device_bytes = sizes.device, .pinned = t->memory[2] = gpu_new_pinned(sizes.pinned),
                                .pinned_bytes = sizes.pinned, .host = t->memory[3] = aligned_alloc(64, sizes.host),
                                .host_bytes = sizes.host};
  expect(kvsift_cuda_policy_create(&c, &a, gpu_stream(), &t->device_policy) == KVSIFT_OK, "%s", error.message);
}

static void make_store(twin *t) {
  kvsift_error error = {0};
  kvsift_store_config c = {.struct_size = sizeof c};
  uint64_t bytes = 0;
  assert_int_equal(kvsift_store_config_init(&c, KVSIFT_STORE_HOST), KVSIFT_OK);
  c.layers = LAYERS, c.query_heads = HEADS, c.kv_heads = KV_HEADS, c.head_dim = DIM, c.max_tokens = TOKENS;
  c.block_tokens = BLOCK, c.fast_blocks = 14, c.sink_tokens = 16, c.local_tokens = 32, c.alignment = 64;
  c.type = t->form.type, c.storage = t->form.storage, c.late_blocks = t->form.late_blocks, c.error = &error;
  expect(kvsift_store_slow_size(&c, &c.host_bytes) == KVSIFT_OK, "%s", error.message);
  c.host_memory = t->memory[4] = aligned_alloc(64, c.host_bytes);
  expect(kvsift_store_arena_size(&c, &bytes, NULL) == KVSIFT_OK, "%s", error.message);
  t->memory[5] = aligned_alloc(4096, (bytes + 4095) / 4096 * 4096);
  expect(kvsift_store_create(&c, t->memory[5], bytes, &t->store) == KVSIFT_OK, "%s", error.message);
}

static void make_device_store(twin *t) {
  kvsift_error error = {0};
  kvsift_cuda_store_config c = {.struct_size = sizeof c};
  kvsift_cuda_sizes sizes = {.struct_size = sizeof sizes};
  assert_int_equal(kvsift_cuda_store_config_init(&c), KVSIFT_OK);
  c.layers = LAYERS, c.query_heads = HEADS, c.kv_heads = KV_HEADS, c.head_dim = DIM, c.max_tokens = TOKENS;
  c.block_tokens = BLOCK, c.fast_blocks = 14, c.sink_tokens = 16, c.local_tokens = 32, c.max_ranges = BLOCKS + 1;
  c.type = t->form.type, c.storage = t->form.storage, c.late_blocks = t->form.late_blocks, c.error = &error;
  c.checksums = t->form.checksums;
  expect(kvsift_cuda_store_sizes(&c, &sizes) == KVSIFT_OK, "%s", error.message);
  const kvsift_cuda_arenas a = {.struct_size = sizeof a, .device = t->memory[6] = gpu_new(sizes.device, NULL),
                                .device_bytes = sizes.device, .pinned = t->memory[7] = gpu_new_pinned(sizes.pinned),
                                .pinned_bytes = sizes.pinned, .host = t->memory[8] = aligned_alloc(64, sizes.host),
                                .host_bytes = sizes.host};
  expect(kvsift_cuda_store_create(&c, &a, gpu_stream(), &t->device_store) == KVSIFT_OK, "%s", error.message);
}

twin *twin_new(twin_form form) {
  twin *t = calloc(1, sizeof *t);
  t->form = form, t->random.state = form.method + 10 * form.type + 100 * form.storage;
  make_rows(t, 0), make_rows(t, 1);
  t->device_query = gpu_new(sizeof t->query, NULL), t->device_out = gpu_new(sizeof t->query, NULL);
  t->block_max = gpu_new(HEADS * BLOCKS * sizeof(float), NULL), t->log_sum_exp = gpu_new(HEADS * sizeof(float), NULL);
  make_policies(t), make_store(t), make_device_store(t);
  return t;
}

void twin_free(twin *t) {
  gpu_wait();
  assert_int_equal(kvsift_store_close(t->store), KVSIFT_OK);
  assert_int_equal(kvsift_cuda_store_destroy(t->device_store), KVSIFT_OK);
  assert_int_equal(kvsift_cuda_policy_destroy(t->device_policy), KVSIFT_OK);
  for (uint32_t i = 0; i < 2; ++i) {
    free(t->rows[i]), free(t->scales[i]), gpu_free(t->device_rows[i]), gpu_free(t->device_scales[i]);
  }
  gpu_free(t->device_query), gpu_free(t->device_out), gpu_free(t->block_max), gpu_free(t->log_sum_exp);
  gpu_free(t->memory[1]), gpu_free_pinned(t->memory[2]), gpu_free(t->memory[6]), gpu_free_pinned(t->memory[7]);
  free(t->memory[0]), free(t->memory[3]), free(t->memory[4]), free(t->memory[5]), free(t->memory[8]);
  free(t);
}

void twin_append(twin *t, uint32_t layer, uint32_t first, uint32_t tokens) {
  const kvsift_view keys = twin_view(t, 0, layer, first, false), values = twin_view(t, 1, layer, first, false);
  const kvsift_view k = twin_view(t, 0, layer, first, true), v = twin_view(t, 1, layer, first, true);
  HERE(t, kvsift_observe_keys(t->policy, layer, NULL, first, tokens, &keys, &values));
  HERE(t, kvsift_store_append(t->store, layer, first, tokens, &keys, &values));
  HERE(t, kvsift_store_flush(t->store));
  THERE(t, kvsift_cuda_observe_keys(t->device_policy, layer, NULL, first, tokens, &k, &v, gpu_stream()));
  THERE(t, kvsift_cuda_store_append(t->device_store, layer, first, tokens, &k, &v, gpu_stream()));
}

void twin_advance(twin *t, uint32_t tokens) {
  HERE(t, kvsift_advance(t->policy, tokens));
  THERE(t, kvsift_cuda_advance(t->device_policy, tokens, gpu_stream()));
}

kvsift_query twin_query(twin *t, uint32_t tokens, bool on_device) {
  kvsift_query q = {.struct_size = sizeof q, .tokens = tokens, .view = {.head_stride = DIM * sizeof(float)}};
  q.view.data = on_device ? t->device_query : t->query;
  if (on_device) return q;
  for (uint32_t i = 0; i < HEADS * DIM; ++i) t->query[i] = 4 * random_unit(&t->random) - 2;
  gpu_write(t->device_query, t->query, sizeof t->query);
  return q;
}

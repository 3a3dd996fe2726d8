#include "device_cache.h"

#include <inttypes.h>

static bool take_rows(device_cache *d, const cache *c, failure *why) {
  const gpu *on = d->policy.gpu;
  d->rows = (uint64_t)c->layers * c->kv_heads * c->capacity;
  d->keys = gpu_take(on, d->rows * c->row_bytes);
  d->values = gpu_take(on, d->rows * c->row_bytes);
  bool done = d->keys && d->values;
  if (c->type == KVSIFT_I8) {
    d->key_scales = gpu_take(on, d->rows * sizeof(float));
    d->value_scales = gpu_take(on, d->rows * sizeof(float));
    done = done && d->key_scales && d->value_scales;
  }
  return done || fail(why, "no device memory for a cache of %" PRIu32 " tokens", c->capacity);
}

/* `rows` rows from the engine's cache to the same place on the device. */
static bool send_rows(const device_cache *d, const cache *c, uint64_t first, uint64_t rows,
                      failure *why) {
  const gpu *on = d->policy.gpu;
  uint64_t at = first * c->row_bytes, bytes = rows * c->row_bytes, scales = rows * sizeof(float);
  return gpu_send(on, d->keys + at, c->keys + at, bytes, why) &&
         gpu_send(on, d->values + at, c->values + at, bytes, why) &&
         (d->key_scales == NULL ||
          (gpu_send(on, d->key_scales + first, c->key_scales + first, scales, why) &&
           gpu_send(on, d->value_scales + first, c->value_scales + first, scales, why)));
}

/* The engine's view of rows, with its pointers moved to the device. */
static kvsift_view moved(kvsift_view view, const uint8_t *from, const uint8_t *to,
                         const float *from_scales, const float *to_scales, uint32_t token) {
  view.data = to + ((const uint8_t *)view.data - from) + token * view.token_stride;
  if (view.scales != NULL) {
    view.scales =
        to_scales + (view.scales - from_scales) + token * view.scale_token_stride / sizeof(float);
  }
  return view;
}

static kvsift_cache rows_on_device(const device_cache *d, const attention_input *in, uint32_t token) {
  const cache *c = in->cache;
  kvsift_cache layer = cache_layer(c, in->layer, in->tokens);
  layer.keys = moved(layer.keys, c->keys, d->keys, c->key_scales, d->key_scales, token);
  layer.values = moved(layer.values, c->values, d->values, c->value_scales, d->value_scales, token);
  return layer;
}

/* A decode step's layer: new rows and the query go to the device, the attention's output comes
 * back. */
static bool attend(void *self, const attention_input *in, float *out, failure *why) {
  device_cache *d = self;
  const cache *c = in->cache;
  kvsift_cache all = rows_on_device(d, in, 0), last = rows_on_device(d, in, in->tokens - 1);
  for (uint32_t h = 0; h < c->kv_heads; h++) {
    uint64_t row = ((uint64_t)in->layer * c->kv_heads + h) * c->capacity + in->tokens - 1;
    if (!send_rows(d, c, row, 1, why)) return false;
  }
  return device_policy_choose(&d->policy, in, &last.keys, &last.values, NULL, why) &&
         device_policy_attend(&d->policy, in, &all, out, why);
}

static bool advance(void *self, uint32_t tokens, failure *why) {
  return device_policy_advance(&((device_cache *)self)->policy, tokens, why);
}

bool device_cache_create(device_cache *out, const gpu *on, const sift *policy, const cache *like,
                         failure *why) {
  *out = (device_cache){.rows = 0};
  return device_policy_create(&out->policy, on, policy, why) && take_rows(out, like, why);
}

void device_cache_release(device_cache *with) {
  const gpu *on = with->policy.gpu;
  void *all[] = {with->keys, with->values, with->key_scales, with->value_scales};
  if (on == NULL) return;
  device_policy_release(&with->policy); /* waits for what reads the rows */
  for (uint32_t i = 0; i < sizeof all / sizeof *all; i++) gpu_give(on, all[i]);
}

bool device_cache_fill(device_cache *to, const cache *from, const sift *policy, failure *why) {
  return send_rows(to, from, 0, to->rows, why) && device_policy_upload(&to->policy, policy, why);
}

attention device_cache_attention(device_cache *with) { return (attention){with, attend, advance}; }

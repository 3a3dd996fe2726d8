#include "device_cache.h"

#include <inttypes.h>

#include "memory.h"

static bool refuse(const device_cache *d, failure *why) {
  return fail(why, "on the device: %s", kvsift_cuda_last_error(d->policy));
}

static bool take_arenas(device_cache *d, failure *why) {
  kvsift_error error = {0};
  kvsift_cuda_sizes sizes = {.struct_size = sizeof sizes};
  d->config.error = &error;
  kvsift_status status = kvsift_cuda_policy_sizes(&d->config, &sizes);
  d->config.error = NULL;
  if (status != KVSIFT_OK) return fail(why, "%s", error.message);
  d->arenas = (kvsift_cuda_arenas){.struct_size = sizeof d->arenas,
                                   .device = gpu_take(d->gpu, sizes.device),
                                   .device_bytes = sizes.device,
                                   .pinned = gpu_take_pinned(d->gpu, sizes.pinned),
                                   .pinned_bytes = sizes.pinned,
                                   .host = memory_take(sizes.host, 1),
                                   .host_bytes = sizes.host};
  if (d->arenas.device && d->arenas.pinned && d->arenas.host) return true;
  return fail(why, "no device memory for an arena of %" PRIu64 " bytes", sizes.device);
}

static bool create_policy(device_cache *d, failure *why) {
  kvsift_error error = {0};
  d->config.error = &error;
  kvsift_status status =
      kvsift_cuda_policy_create(&d->config, &d->arenas, gpu_stream(d->gpu), &d->policy);
  d->config.error = NULL;
  return status == KVSIFT_OK || fail(why, "%s", error.message);
}

static bool take_rows(device_cache *d, const cache *c, failure *why) {
  const kvsift_policy_config *p = &d->config;
  uint64_t heads = (uint64_t)p->query_heads * p->head_dim * sizeof(float);
  uint64_t blocks = (p->max_tokens + p->block_tokens - 1) / p->block_tokens;
  uint64_t entries = p->query_heads * blocks * sizeof(float);
  d->rows = (uint64_t)c->layers * c->kv_heads * c->capacity;
  d->keys = gpu_take(d->gpu, d->rows * c->row_bytes);
  d->values = gpu_take(d->gpu, d->rows * c->row_bytes);
  d->query = gpu_take(d->gpu, heads);
  d->out = gpu_take(d->gpu, heads);
  kvsift_observation *o = &d->observation;
  *o = (kvsift_observation){.struct_size = sizeof *o, .block_stride = (uint32_t)blocks};
  /* A method learns from masses or from maxima. */
  float **learnt = (d->needs & KVSIFT_NEEDS_MASS) != 0 ? &o->block_mass : &o->block_max;
  *learnt = gpu_take(d->gpu, entries);
  o->log_sum_exp = gpu_take(d->gpu, p->query_heads * sizeof(float));
  bool done = d->keys && d->values && d->query && d->out && *learnt && o->log_sum_exp;
  if (c->type == KVSIFT_I8) {
    d->key_scales = gpu_take(d->gpu, d->rows * sizeof(float));
    d->value_scales = gpu_take(d->gpu, d->rows * sizeof(float));
    done = done && d->key_scales && d->value_scales;
  }
  return done || fail(why, "no device memory for a cache of %" PRIu32 " tokens", c->capacity);
}

/* `rows` rows from the engine's cache to the same place on the device. */
static bool send_rows(const device_cache *d, const cache *c, uint64_t first, uint64_t rows,
                      failure *why) {
  uint64_t at = first * c->row_bytes, bytes = rows * c->row_bytes, scales = rows * sizeof(float);
  return gpu_send(d->gpu, d->keys + at, c->keys + at, bytes, why) &&
         gpu_send(d->gpu, d->values + at, c->values + at, bytes, why) &&
         (d->key_scales == NULL ||
          (gpu_send(d->gpu, d->key_scales + first, c->key_scales + first, scales, why) &&
           gpu_send(d->gpu, d->value_scales + first, c->value_scales + first, scales, why)));
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

static bool send_step(const device_cache *d, const attention_input *in, failure *why) {
  const cache *c = in->cache;
  uint64_t heads = (uint64_t)in->model->query_heads * in->model->head_dim * sizeof(float);
  for (uint32_t h = 0; h < c->kv_heads; h++) {
    uint64_t row = ((uint64_t)in->layer * c->kv_heads + h) * c->capacity + in->tokens - 1;
    if (!send_rows(d, c, row, 1, why)) return false;
  }
  return gpu_send(d->gpu, d->query, in->queries, heads, why);
}

/* A decode step's layer: new rows and the query go to the device, the attention's output comes
 * back. */
static bool attend(void *self, const attention_input *in, float *out, failure *why) {
  device_cache *d = self;
  void *stream = gpu_stream(d->gpu);
  uint64_t head = in->model->head_dim * sizeof(float);
  kvsift_query query = {.struct_size = sizeof query,
                        .tokens = in->tokens,
                        .view = {.data = d->query, .type = KVSIFT_F32, .head_stride = head}};
  kvsift_cache all = rows_on_device(d, in, 0), last = rows_on_device(d, in, in->tokens - 1);
  kvsift_observation seen = d->observation;
  bool feeds_back = (d->needs & KVSIFT_NEEDS_ATTENTION) != 0;
  if (!send_step(d, in, why)) return false;
  kvsift_status status = kvsift_cuda_observe_keys(d->policy, in->layer, NULL, in->tokens - 1, 1,
                                                  &last.keys, &last.values, stream);
  if (status == KVSIFT_OK)
    status = kvsift_cuda_select_blocks(d->policy, in->layer, &query, NULL, stream);
  if (status == KVSIFT_OK) {
    status = kvsift_cuda_attend(d->policy, in->layer, &query, &all, d->out,
                                feeds_back ? &seen : NULL, stream);
  }
  if (status == KVSIFT_OK && feeds_back) {
    status = kvsift_cuda_observe_attention(d->policy, in->layer, NULL, &seen, stream);
  }
  if (status != KVSIFT_OK) return refuse(d, why);
  return gpu_receive(d->gpu, out, d->out, in->model->query_heads * head, why);
}

static bool advance(void *self, uint32_t tokens, failure *why) {
  device_cache *d = self;
  return kvsift_cuda_advance(d->policy, tokens, gpu_stream(d->gpu)) == KVSIFT_OK || refuse(d, why);
}

bool device_cache_create(device_cache *out, const gpu *on, const sift *policy, const cache *like,
                         failure *why) {
  *out = (device_cache){.gpu = on, .config = policy->config, .needs = policy->info.needs};
  return take_arenas(out, why) && create_policy(out, why) && take_rows(out, like, why);
}

void device_cache_release(device_cache *with) {
  void *all[] = {with->arenas.device,
                 with->keys,
                 with->values,
                 with->key_scales,
                 with->value_scales,
                 with->query,
                 with->out,
                 with->observation.block_max,
                 with->observation.block_mass,
                 with->observation.log_sum_exp};
  if (with->gpu == NULL) return;
  gpu_wait(with->gpu);
  if (with->policy != NULL) kvsift_cuda_policy_destroy(with->policy);
  for (uint32_t i = 0; i < sizeof all / sizeof *all; i++) gpu_give(with->gpu, all[i]);
  gpu_give_pinned(with->gpu, with->arenas.pinned);
  memory_give(with->arenas.host);
}

bool device_cache_fill(device_cache *to, const cache *from, const sift *policy, failure *why) {
  if (!send_rows(to, from, 0, to->rows, why)) return false;
  if (kvsift_cuda_upload(to->policy, policy->policy, gpu_stream(to->gpu)) != KVSIFT_OK)
    return refuse(to, why);
  gpu_wait(to->gpu);
  return true;
}

attention device_cache_attention(device_cache *with) { return (attention){with, attend, advance}; }

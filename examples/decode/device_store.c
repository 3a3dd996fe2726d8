#include "device_store.h"

#include "tiers.h"

static bool refuse(const device_store *d, failure *why) {
  return fail(why, "on the device: %s", kvsift_cuda_store_last_error(d->store));
}

static bool configure(device_store *d, const cache *like, uint32_t fast_blocks, failure *why) {
  kvsift_cuda_store_config *c = &d->config;
  const kvsift_policy_config *policy = &d->reader->config;
  *c = (kvsift_cuda_store_config){.struct_size = sizeof *c};
  kvsift_status status = kvsift_cuda_store_config_init(c);
  if (status != KVSIFT_OK) return fail(why, "%s", kvsift_status_string(status));
  c->layers = like->layers;
  c->query_heads = policy->query_heads;
  c->kv_heads = like->kv_heads;
  c->head_dim = like->head_dim;
  c->max_tokens = like->capacity;
  c->type = c->storage = like->type;
  c->resident_layers = policy->dense_layers;
  c->sink_tokens = policy->sink_tokens;
  c->local_tokens = policy->local_tokens;
  c->fast_blocks = tiers_fast_blocks(fast_blocks, c->max_tokens, c->block_tokens);
  c->max_ranges = d->reader->info.max_ranges;
  c->checksums = 1; /* as the CPU's store has them */
  return true;
}

static bool create_store(device_store *d, failure *why) {
  const gpu *on = d->policy.gpu;
  kvsift_error error = {0};
  kvsift_cuda_sizes sizes = {.struct_size = sizeof sizes};
  d->config.error = &error;
  bool done = kvsift_cuda_store_sizes(&d->config, &sizes) == KVSIFT_OK ||
              fail(why, "%s", error.message);
  done = done && device_arenas_take(&d->arenas, on, &sizes, why);
  if (done) {
    done = kvsift_cuda_store_create(&d->config, &d->arenas, gpu_stream(on), &d->store) ==
               KVSIFT_OK ||
           fail(why, "%s", error.message);
  }
  d->config.error = NULL;
  return done;
}

static bool take_rows(device_store *d, const cache *like, failure *why) {
  const gpu *on = d->policy.gpu;
  uint64_t rows = (uint64_t)like->kv_heads * ENGINE_BATCH;
  d->keys = gpu_take(on, rows * like->row_bytes);
  d->values = gpu_take(on, rows * like->row_bytes);
  bool done = d->keys && d->values;
  if (like->type == KVSIFT_I8) {
    d->key_scales = gpu_take(on, rows * sizeof(float));
    d->value_scales = gpu_take(on, rows * sizeof(float));
    done = done && d->key_scales && d->value_scales;
  }
  return done || fail(why, "no device memory for the rows of %u tokens", ENGINE_BATCH);
}

/* The new tokens' rows of one KV head. */
static bool send_head(const device_store *d, const attention_input *in, uint32_t head,
                      failure *why) {
  const cache *c = in->cache;
  const gpu *on = d->policy.gpu;
  uint64_t from = ((uint64_t)in->layer * c->kv_heads + head) * c->capacity + in->tokens - in->rows;
  uint64_t to = (uint64_t)head * ENGINE_BATCH, row = c->row_bytes;
  uint64_t bytes = in->rows * row, scales = in->rows * sizeof(float);
  return gpu_send(on, d->keys + to * row, c->keys + from * row, bytes, why) &&
         gpu_send(on, d->values + to * row, c->values + from * row, bytes, why) &&
         (d->key_scales == NULL ||
          (gpu_send(on, d->key_scales + to, c->key_scales + from, scales, why) &&
           gpu_send(on, d->value_scales + to, c->value_scales + from, scales, why)));
}

static kvsift_view sent(const cache *c, const uint8_t *rows, const float *scales) {
  kvsift_view view = {.data = rows,
                      .type = c->type,
                      .token_stride = c->row_bytes,
                      .head_stride = ENGINE_BATCH * c->row_bytes};
  if (scales == NULL) return view;
  view.scales = scales;
  view.scale_token_stride = sizeof(float);
  view.scale_head_stride = ENGINE_BATCH * sizeof(float);
  return view;
}

/* The rows that the engine has just written. */
static bool add_rows(device_store *d, const attention_input *in, failure *why) {
  kvsift_view keys = sent(in->cache, d->keys, d->key_scales);
  kvsift_view values = sent(in->cache, d->values, d->value_scales);
  for (uint32_t h = 0; h < in->cache->kv_heads; h++) {
    if (!send_head(d, in, h, why)) return false;
  }
  kvsift_status status =
      kvsift_cuda_store_append(d->store, in->layer, in->tokens - in->rows, in->rows, &keys, &values,
                               gpu_stream(d->policy.gpu));
  return status == KVSIFT_OK || refuse(d, why);
}

static bool look_ahead(device_store *d, const attention_input *in, failure *why) {
  void *stream = gpu_stream(d->policy.gpu);
  kvsift_cuda_selection ahead = {.struct_size = sizeof ahead};
  kvsift_selection lists = {.struct_size = sizeof lists};
  if (!tiers_look_ahead(&d->policy.config, in->tokens)) return true;
  if (!device_policy_look_ahead(&d->policy, in, &ahead, why)) return false;
  kvsift_status status = kvsift_cuda_store_receive(d->store, &ahead, stream, &lists);
  if (status == KVSIFT_OK)
    status = kvsift_cuda_store_prefetch(d->store, in->layer, &lists, stream, NULL);
  return status == KVSIFT_OK || refuse(d, why);
}

/* What was chosen comes to the device. There is no late cap, so resolve leaves nothing out, of which
 * kvsift_cuda_keep_present would have to tell the policy. */
static bool fetch(device_store *d, const attention_input *in, const kvsift_cuda_selection *chosen,
                  kvsift_cache *slots, failure *why) {
  void *stream = gpu_stream(d->policy.gpu);
  kvsift_selection lists = {.struct_size = sizeof lists};
  kvsift_status status = kvsift_cuda_store_receive(d->store, chosen, stream, &lists);
  if (status == KVSIFT_OK)
    status = kvsift_cuda_store_resolve(d->store, in->layer, &lists, slots, stream);
  return status == KVSIFT_OK || refuse(d, why);
}

/* A decode step's layer: the store's slots are all of the cache that is read. */
static bool attend(void *self, const attention_input *in, float *out, failure *why) {
  device_store *d = self;
  kvsift_view keys = sent(in->cache, d->keys, d->key_scales);
  kvsift_view values = sent(in->cache, d->values, d->value_scales);
  kvsift_cuda_selection chosen = {.struct_size = sizeof chosen};
  kvsift_cache slots = {.struct_size = sizeof slots};
  return add_rows(d, in, why) &&
         device_policy_choose(&d->policy, in, &keys, &values, &chosen, why) &&
         fetch(d, in, &chosen, &slots, why) &&
         device_policy_attend(&d->policy, in, &slots, out, why) && look_ahead(d, in, why);
}

static bool advance(void *self, uint32_t tokens, failure *why) {
  return device_policy_advance(&((device_store *)self)->policy, tokens, why);
}

static bool read_layer(void *self, const attention_input *in, float *out, failure *why) {
  device_store *d = self;
  return sift_prompt(d->reader, in, out, true, why) && add_rows(d, in, why);
}

static bool advance_reader(void *self, uint32_t tokens, failure *why) {
  return sift_advance(((device_store *)self)->reader, tokens, why);
}

bool device_store_create(device_store *out, const gpu *on, sift *reader, const cache *like,
                         uint32_t fast_blocks, failure *why) {
  *out = (device_store){.reader = reader};
  return device_policy_create(&out->policy, on, reader, why) &&
         configure(out, like, fast_blocks, why) && create_store(out, why) &&
         take_rows(out, like, why);
}

void device_store_release(device_store *with) {
  const gpu *on = with->policy.gpu;
  void *all[] = {with->keys, with->values, with->key_scales, with->value_scales};
  if (on == NULL) return;
  device_policy_release(&with->policy); /* waits for what reads the rows */
  if (with->store != NULL) kvsift_cuda_store_destroy(with->store);
  for (uint32_t i = 0; i < sizeof all / sizeof *all; i++) gpu_give(on, all[i]);
  device_arenas_give(on, &with->arenas);
}

attention device_store_reading(device_store *with) {
  return (attention){with, read_layer, advance_reader};
}

bool device_store_begin(device_store *with, failure *why) {
  return device_policy_upload(&with->policy, with->reader, why);
}

attention device_store_attention(device_store *with) { return (attention){with, attend, advance}; }

bool device_store_finish(device_store *with, kvsift_store_stats *stats, failure *why) {
  gpu_wait(with->policy.gpu);
  bool done = kvsift_cuda_store_flush(with->store) == KVSIFT_OK &&
              kvsift_cuda_store_get_stats(with->store, stats) == KVSIFT_OK;
  return done || refuse(with, why);
}

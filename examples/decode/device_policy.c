#include "device_policy.h"

static bool refuse(const device_policy *d, failure *why) {
  return fail(why, "on the device: %s", kvsift_cuda_last_error(d->policy));
}

static bool create_policy(device_policy *d, failure *why) {
  kvsift_error error = {0};
  kvsift_cuda_sizes sizes = {.struct_size = sizeof sizes};
  d->config.error = &error;
  bool done = kvsift_cuda_policy_sizes(&d->config, &sizes) == KVSIFT_OK ||
              fail(why, "%s", error.message);
  done = done && device_arenas_take(&d->arenas, d->gpu, &sizes, why);
  if (done) {
    done = kvsift_cuda_policy_create(&d->config, &d->arenas, gpu_stream(d->gpu), &d->policy) ==
               KVSIFT_OK ||
           fail(why, "%s", error.message);
  }
  d->config.error = NULL;
  return done;
}

static bool take_rows(device_policy *d, failure *why) {
  const kvsift_policy_config *p = &d->config;
  uint64_t heads = (uint64_t)p->query_heads * p->head_dim * sizeof(float);
  uint64_t blocks = (p->max_tokens + p->block_tokens - 1) / p->block_tokens;
  kvsift_observation *o = &d->observation;
  *o = (kvsift_observation){.struct_size = sizeof *o, .block_stride = (uint32_t)blocks};
  /* A method learns from masses or from maxima. */
  float **learnt = (d->needs & KVSIFT_NEEDS_MASS) != 0 ? &o->block_mass : &o->block_max;
  d->query = gpu_take(d->gpu, heads);
  d->out = gpu_take(d->gpu, heads);
  *learnt = gpu_take(d->gpu, p->query_heads * blocks * sizeof(float));
  o->log_sum_exp = gpu_take(d->gpu, p->query_heads * sizeof(float));
  bool done = d->query && d->out && *learnt && o->log_sum_exp;
  return done || fail(why, "no device memory for a step's rows");
}

bool device_policy_create(device_policy *out, const gpu *on, const sift *like, failure *why) {
  *out = (device_policy){.gpu = on, .config = like->config, .needs = like->info.needs};
  return create_policy(out, why) && take_rows(out, why);
}

void device_policy_release(device_policy *with) {
  if (with->gpu == NULL) return;
  gpu_wait(with->gpu);
  if (with->policy != NULL) kvsift_cuda_policy_destroy(with->policy);
  void *all[] = {with->query, with->out, with->observation.block_max,
                 with->observation.block_mass, with->observation.log_sum_exp};
  for (uint32_t i = 0; i < sizeof all / sizeof *all; i++) gpu_give(with->gpu, all[i]);
  device_arenas_give(with->gpu, &with->arenas);
}

bool device_policy_upload(device_policy *to, const sift *from, failure *why) {
  if (kvsift_cuda_upload(to->policy, from->policy, gpu_stream(to->gpu)) != KVSIFT_OK)
    return refuse(to, why);
  gpu_wait(to->gpu);
  return true;
}

static kvsift_query query_of(const device_policy *d, const attention_input *in) {
  uint64_t head = in->model->head_dim * sizeof(float);
  return (kvsift_query){.struct_size = sizeof(kvsift_query),
                        .tokens = in->tokens,
                        .view = {.data = d->query, .type = KVSIFT_F32, .head_stride = head}};
}

bool device_policy_choose(device_policy *with, const attention_input *in, const kvsift_view *keys,
                          const kvsift_view *values, kvsift_cuda_selection *chosen, failure *why) {
  void *stream = gpu_stream(with->gpu);
  kvsift_query query = query_of(with, in);
  uint64_t heads = in->model->query_heads * query.view.head_stride;
  if (!gpu_send(with->gpu, with->query, in->queries, heads, why)) return false;
  kvsift_status status = kvsift_cuda_observe_keys(with->policy, in->layer, NULL, in->tokens - 1, 1,
                                                  keys, values, stream);
  if (status == KVSIFT_OK)
    status = kvsift_cuda_select_blocks(with->policy, in->layer, &query, chosen, stream);
  return status == KVSIFT_OK || refuse(with, why);
}

bool device_policy_attend(device_policy *with, const attention_input *in, const kvsift_cache *rows,
                          float *out, failure *why) {
  void *stream = gpu_stream(with->gpu);
  kvsift_query query = query_of(with, in);
  kvsift_observation seen = with->observation;
  bool feeds_back = (with->needs & KVSIFT_NEEDS_ATTENTION) != 0;
  kvsift_status status = kvsift_cuda_attend(with->policy, in->layer, &query, rows, with->out,
                                            feeds_back ? &seen : NULL, stream);
  if (status == KVSIFT_OK && feeds_back)
    status = kvsift_cuda_observe_attention(with->policy, in->layer, NULL, &seen, stream);
  if (status != KVSIFT_OK) return refuse(with, why);
  uint64_t heads = in->model->query_heads * query.view.head_stride;
  return gpu_receive(with->gpu, out, with->out, heads, why);
}

bool device_policy_look_ahead(device_policy *with, const attention_input *in,
                              kvsift_cuda_selection *ahead, failure *why) {
  void *stream = gpu_stream(with->gpu);
  kvsift_query next = {.struct_size = sizeof next, .tokens = in->tokens + 1};
  kvsift_status status = kvsift_cuda_predict_next(with->policy, in->layer, NULL, stream);
  if (status == KVSIFT_OK)
    status = kvsift_cuda_select_blocks(with->policy, in->layer, &next, ahead, stream);
  return status == KVSIFT_OK || refuse(with, why);
}

bool device_policy_advance(device_policy *with, uint32_t tokens, failure *why) {
  kvsift_status status = kvsift_cuda_advance(with->policy, tokens, gpu_stream(with->gpu));
  return status == KVSIFT_OK || refuse(with, why);
}

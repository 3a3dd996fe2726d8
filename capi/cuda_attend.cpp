// Attention on the device, and what is learned from it.
#include "kvsift/kvsift_cuda.h"

#include "cuda/attend/launch.h"
#include "cuda/methods/method.h"
#include "cuda/policy/steps.h"
#include "cuda_check.h"
#include "methods/method.h"
#include "policy/select.h"

using namespace kvsift;

static kvsift_status check_buffers(const Policy *p, const kvsift_observation *o, std::uint32_t tokens) {
  const std::uint32_t blocks = blocks_of(tokens == 0 ? p->s.c.max_tokens : tokens, p->s.c.block_tokens);
  if (o->struct_size < sizeof *o) {
    return fail_in(p, KVSIFT_INVALID_STRUCT_SIZE, "observation->struct_size is ", o->struct_size);
  }
  return check_block_buffers(p, *o, blocks);
}

kvsift_status kvsift::check_attend(CudaPolicy *own, std::uint32_t layer, const kvsift_query *query, HeadSpan *span) {
  const Policy *p = &own->host;
  if (kvsift_status s = check_usable(own)) return s;
  if (query == nullptr) return fail_in(p, KVSIFT_INVALID_ARGUMENT, "query is null");
  if (kvsift_status s = check_layer(p, layer)) return s;
  if (kvsift_status s = check_heads(p, query, span)) return s;
  if (kvsift_status s = check_device_query(p, query)) return s;
  const std::uint32_t chosen = p->selected_for.load(std::memory_order_relaxed);
  const std::uint32_t tokens = query->tokens == 0 ? p->tokens + 1 : query->tokens;
  if (chosen == tokens) return KVSIFT_OK;
  return fail_in(p, KVSIFT_OUT_OF_ORDER, "query->tokens is ", query->tokens, ", the last selection was for ", chosen,
                 " tokens");
}

static bool may_calibrate(const Policy *p, std::uint32_t layer, std::uint32_t tokens) {
  if (layer < p->s.c.dense_layers || p->s.c.calibration_dense != 0 || p->s.c.calibration_period == 0) return false;
  if ((p->s.needs & KVSIFT_NEEDS_ATTENTION) == 0 || method_of(p->s.c.method)->evicts) return false;
  return tokens == 0 || step_at(*p, tokens).calibration;
}

static AttendArgs attend_args(const CudaJob &job, const kvsift_query &query, float *out) {
  const Policy *p = &job.policy->host;
  AttendArgs args{};
  args.call = job.call;
  args.query = query.view;
  args.out = out;
  args.present = job.policy->present_layer == job.call.layer + 1;
  args.logits_of_selection = cuda_method_of(p->s.c.method)->leaves_tail;
  args.tail = job.call.layer < p->s.c.dense_layers ? static_cast<std::uint32_t>(KVSIFT_TAIL_NONE) : p->s.c.tail;
  return args;
}

extern "C" kvsift_status kvsift_cuda_attend(kvsift_cuda_policy *policy, uint32_t layer, const kvsift_query *query,
                                            const kvsift_cache *cache, float *out, kvsift_observation *observation,
                                            void *stream) {
  if (!is_policy(policy)) return KVSIFT_INVALID_ARGUMENT;
  CudaPolicy *own = policy_of(policy);
  const Policy *p = &own->host;
  HeadSpan span;
  if (kvsift_status s = check_attend(own, layer, query, &span)) return s;
  if (out == nullptr) return fail_in(p, KVSIFT_INVALID_ARGUMENT, "out is null");
  if (kvsift_status s = check_cache(p, cache, query->tokens)) return s;
  if (observation != nullptr) {
    if (kvsift_status s = check_buffers(p, observation, query->tokens)) return s;
  }
  const CudaJob job = job_of(own, layer, span, query->tokens, stream);
  AttendArgs args = attend_args(job, *query, out);
  args.cache = cache_args(*cache);
  if (observation != nullptr) {
    args.block_max = observation->block_max;
    args.block_mass = observation->block_mass;
    args.log_sum_exp = observation->log_sum_exp;
    args.block_stride = observation->block_stride;
  }
  if (kvsift_status s = launch_attend(job.to, args, job.heads(), may_calibrate(p, layer, query->tokens))) return job.done(s);
  if (observation == nullptr) return KVSIFT_OK;
  observation->tokens = query->tokens;
  observation->rows = nullptr;
  observation->full = 0;
  if (query->tokens == 0) return KVSIFT_OK;
  const Step step = layer < p->s.c.dense_layers ? Step{query->tokens, true, false} : step_at(*p, query->tokens);
  observation->full = step.everything || step.calibration;
  if (args.present != 0 && step.everything) observation->full = 0;
  return KVSIFT_OK;
}

extern "C" kvsift_status kvsift_cuda_attend_tail(kvsift_cuda_policy *policy, uint32_t layer, const kvsift_query *query,
                                                 float *out, float *log_sum_exp, void *stream) {
  if (!is_policy(policy)) return KVSIFT_INVALID_ARGUMENT;
  CudaPolicy *own = policy_of(policy);
  const Policy *p = &own->host;
  HeadSpan span;
  if (kvsift_status s = check_attend(own, layer, query, &span)) return s;
  if (out == nullptr) return fail_in(p, KVSIFT_INVALID_ARGUMENT, "out is null");
  if (log_sum_exp == nullptr) return fail_in(p, KVSIFT_INVALID_ARGUMENT, "log_sum_exp is null");
  if (p->s.c.tail == KVSIFT_TAIL_BALANCE) {
    return fail_in(p, KVSIFT_UNSUPPORTED, "config.tail is KVSIFT_TAIL_BALANCE: its rows lie in the cache, which is not given");
  }
  const CudaJob job = job_of(own, layer, span, query->tokens, stream);
  AttendArgs args = attend_args(job, *query, out);
  args.log_sum_exp = log_sum_exp;
  args.tail_only = 1;
  return job.done(launch_attend(job.to, args, job.heads(), false));
}

static kvsift_status check_observation(const CudaPolicy &own, std::uint32_t layer, const kvsift_observation *o, HeadSpan span) {
  const Policy *p = &own.host;
  if (o->struct_size < sizeof *o) {
    return fail_in(p, KVSIFT_INVALID_STRUCT_SIZE, "observation->struct_size is ", o->struct_size);
  }
  if (o->tokens > p->s.c.max_tokens) {
    return fail_in(p, KVSIFT_CAPACITY, "observation->tokens is ", o->tokens, ", max_tokens is ", p->s.c.max_tokens);
  }
  if (layer < p->s.c.dense_layers) return KVSIFT_OK;
  if (o->rows == nullptr) {
    if (kvsift_status s = check_buffers(p, o, o->tokens)) return s;
  } else if (o->row_stride < o->tokens) {
    return fail_in(p, KVSIFT_INVALID_ARGUMENT, "observation->row_stride is ", o->row_stride, ", less than tokens ", o->tokens);
  }
  for (std::uint32_t head = span.begin; head < span.end && o->tokens > 0; ++head) {
    const std::uint32_t rows = own.seen(own.rows_seen, layer)[head], seen = rows > p->tokens ? rows : p->tokens;
    if (o->tokens > seen) continue;
    return fail_in(p, KVSIFT_OUT_OF_ORDER, "observation->tokens is ", o->tokens, ", KV head ", head, " of layer ", layer,
                   " has rows up to ", seen);
  }
  return KVSIFT_OK;
}

static kvsift_status observe_on_device(const CudaJob &job, const kvsift_observation &o) {
  const Policy *p = &job.policy->host;
  const CudaMethod &method = *cuda_method_of(p->s.c.method);
  const Launcher &to = job.to;
  const std::uint32_t blocks = o.tokens == 0 ? p->s.max_blocks : blocks_of(o.tokens, p->s.c.block_tokens);
  ObserveArgs args{job.call, o.block_max, o.block_mass, o.log_sum_exp, o.block_stride, o.rows, o.row_stride, o.full, 0};
  if (o.tokens == 0) args.full = kFullFromStep;
  args.has_mass = o.rows != nullptr || o.block_mass != nullptr;
  const std::uint32_t pool = blocks_of(blocks, 256), most = blocks_of(to.device.multiprocessors * 4, job.heads());
  const LaunchShape pooling{pool < most ? pool : most, job.heads(), 1, 256, 0}, beginning{1, job.heads(), 1, 256, 0};
  if (kvsift_status s = launch(to.device, kKernel_observe_pool, pooling, to.stream, args, to.error)) return s;
  if (kvsift_status s = launch(to.device, kKernel_observe_begin, beginning, to.stream, args, to.error)) return s;
  if (method.observe == nullptr) return KVSIFT_OK;
  const Image &image = job.call.image;
  const std::uint64_t stride = scratch_stride(p->s);
  const float *peak = reinterpret_cast<const float *>(image.base + image.scratch) + job.call.first_head * image.scratch_floats;
  const std::uint32_t tokens = o.tokens == 0 ? p->tokens + 1 : o.tokens;
  const bool prompt = p->selected_for.load(std::memory_order_relaxed) != tokens;
  const bool first = job.policy->seen(job.policy->rows_seen, job.call.layer)[job.call.first_head] <= p->tokens;
  const DeviceRows rows{peak, args.has_mass != 0 ? peak + p->s.group * stride : nullptr, 0, image.scratch_floats, stride, 1,
                        prompt, prompt && first};
  return method.observe(to, job.call, job.heads(), rows);
}

extern "C" kvsift_status kvsift_cuda_observe_attention(kvsift_cuda_policy *policy, uint32_t layer, const kvsift_query *heads,
                                                       const kvsift_observation *observation, void *stream) {
  if (!is_policy(policy)) return KVSIFT_INVALID_ARGUMENT;
  CudaPolicy *own = policy_of(policy);
  const Policy *p = &own->host;
  HeadSpan span;
  if (kvsift_status s = check_usable(own)) return s;
  if (observation == nullptr) return fail_in(p, KVSIFT_INVALID_ARGUMENT, "observation is null");
  if (kvsift_status s = check_layer(p, layer)) return s;
  if (kvsift_status s = check_heads(p, heads, &span)) return s;
  if (kvsift_status s = check_observation(*own, layer, observation, span)) return s;
  if (layer < p->s.c.dense_layers) return KVSIFT_OK;
  const CudaJob job = job_of(own, layer, span, observation->tokens, stream);
  if (kvsift_status s = observe_on_device(job, *observation)) return job.done(s);
  const std::uint32_t tokens = observation->tokens == 0 ? p->tokens + 1 : observation->tokens;
  for (std::uint32_t head = span.begin; head < span.end; ++head) own->seen(own->rows_seen, layer)[head] = tokens;
  return KVSIFT_OK;
}

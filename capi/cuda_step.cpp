// A decode step on the device but for its attention: keys in, choices out, tokens counted.
#include "kvsift/kvsift_cuda.h"

#include "cuda/methods/method.h"
#include "cuda/methods/page_scores.h"
#include "cuda/policy/choose.h"
#include "cuda/policy/coreset.h"
#include "cuda/policy/pages.h"
#include "cuda/policy/steps.h"
#include "cuda_check.h"
#include "methods/method.h"
#include "policy/coreset.h"
#include "policy/select.h"

using namespace kvsift;

static bool learns(const Policy *p) {
  return (p->s.needs & KVSIFT_NEEDS_ATTENTION) != 0 && !method_of(p->s.c.method)->evicts;
}

static kvsift_status check_keys(const CudaPolicy &policy, std::uint32_t layer, HeadSpan span, std::uint32_t first,
                                std::uint32_t tokens) {
  const Policy *p = &policy.host;
  const bool next = first == KVSIFT_CUDA_NEXT;
  if (tokens > p->s.c.max_tokens || (!next && first > p->s.c.max_tokens - tokens)) {
    return fail_in(p, KVSIFT_CAPACITY, "first_token ", first, " plus tokens ", tokens, " is beyond max_tokens ",
                   p->s.c.max_tokens);
  }
  if (layer < p->s.c.dense_layers || next) return KVSIFT_OK;
  for (std::uint32_t head = span.begin; head < span.end; ++head) {
    const std::uint32_t seen = policy.seen(policy.keys_seen, layer)[head];
    if (seen == first || (p->s.needs & KVSIFT_NEEDS_KEYS) == 0) continue;
    return fail_in(p, KVSIFT_OUT_OF_ORDER, "first_token is ", first, ", KV head ", head, " of layer ", layer,
                   " has keys of ", seen, " tokens");
  }
  return KVSIFT_OK;
}

// One block a head goes through what must be in order; whole pages of a long stretch are spread over more.
static LaunchShape keys_shape(const Settings &s, std::uint32_t heads, const KeysArgs &args) {
  constexpr std::uint32_t kMost = 2048;
  const std::uint32_t pages = args.tokens / s.c.page_tokens;
  std::uint32_t blocks = args.first_token == KVSIFT_CUDA_NEXT || pages < 2 ? 1 : 1 + pages;
  if (blocks > kMost) blocks = kMost;
  return LaunchShape{blocks, heads, 1, (s.dim16 + 31) / 32 * 32, 0};
}

extern "C" kvsift_status kvsift_cuda_observe_keys(kvsift_cuda_policy *policy, uint32_t layer, const kvsift_query *heads,
                                                  uint32_t first_token, uint32_t tokens, const kvsift_view *keys,
                                                  const kvsift_view *values, void *stream) {
  if (!is_policy(policy)) return KVSIFT_INVALID_ARGUMENT;
  CudaPolicy *own = policy_of(policy);
  const Policy *p = &own->host;
  HeadSpan span;
  if (kvsift_status s = check_usable(own)) return s;
  if (kvsift_status s = check_layer(p, layer)) return s;
  if (kvsift_status s = check_heads(p, heads, &span)) return s;
  if (kvsift_status s = check_keys(*own, layer, span, first_token, tokens)) return s;
  if (layer < p->s.c.dense_layers || (p->s.needs & KVSIFT_NEEDS_KEYS) == 0 || tokens == 0) return KVSIFT_OK;
  if (keys == nullptr) return fail_in(p, KVSIFT_INVALID_ARGUMENT, "keys is null");
  if (kvsift_status s = check_view(p, "keys", *keys)) return s;
  const CudaJob job = job_of(own, layer, span, 0, stream);
  KeysArgs args{job.call, *keys, kvsift_view{}, first_token, tokens};
  if ((p->s.needs & KVSIFT_NEEDS_VALUES) != 0) {
    if (values == nullptr) return fail_in(p, KVSIFT_INVALID_ARGUMENT, "values is null, this policy's tail needs them");
    if (kvsift_status s = check_view(p, "values", *values)) return s;
    args.values = *values;
  }
  const LaunchShape shape = keys_shape(p->s, job.heads(), args);
  if (kvsift_status s = launch(own->device, kKernel_append_keys, shape, stream, args, job.to.error)) return job.done(s);
  if (has_coreset(p->s)) {
    if (kvsift_status s = push_to_coresets(job.to, args, job.heads())) return job.done(s);
  }
  for (std::uint32_t head = span.begin; head < span.end; ++head) own->seen(own->keys_seen, layer)[head] += tokens;
  return KVSIFT_OK;
}

static kvsift_status check_select(const CudaPolicy &policy, std::uint32_t layer, const kvsift_query *query, HeadSpan span) {
  const Policy *p = &policy.host;
  if (query->tokens == 0) return KVSIFT_OK;
  if (query->tokens <= p->tokens) {
    return fail_in(p, KVSIFT_OUT_OF_ORDER, "query->tokens is ", query->tokens, ", the policy is ", p->tokens,
                   " tokens on: the new token counts");
  }
  for (std::uint32_t head = span.begin; head < span.end && layer >= p->s.c.dense_layers; ++head) {
    const std::uint32_t seen = policy.seen(policy.keys_seen, layer)[head];
    if ((p->s.needs & KVSIFT_NEEDS_KEYS) == 0 || seen >= query->tokens) continue;
    return fail_in(p, KVSIFT_OUT_OF_ORDER, "query->tokens is ", query->tokens, ", KV head ", head, " of layer ", layer,
                   " has keys of ", seen, " tokens: kvsift_cuda_observe_keys comes first");
  }
  return KVSIFT_OK;
}

// What the host knows of the step without the device.
static Step known_step(const Policy *p, std::uint32_t layer, std::uint32_t tokens) {
  if (tokens == 0) return Step{0, false, false};
  if (layer < p->s.c.dense_layers) return Step{tokens, true, false};
  return step_at(*p, tokens);
}

void kvsift::describe_choice(const CudaPolicy &policy, std::uint32_t layer, std::uint32_t tokens, kvsift_cuda_selection *out) {
  const Settings &s = policy.host.s;
  const Image &image = policy.image;
  const Step step = known_step(&policy.host, layer, tokens);
  kvsift_selection &lists = out->lists;
  lists = kvsift_selection{};
  lists.struct_size = sizeof lists;
  lists.tokens = tokens;
  lists.lists = s.lists * s.c.kv_heads;
  lists.per_query_head = s.c.grouping == KVSIFT_GROUP_QUERY_HEAD;
  lists.calibration = step.calibration;
  lists.everything = step.everything || (step.calibration && s.c.calibration_dense != 0);
  lists.block_tokens = s.c.block_tokens;
  lists.range_stride = s.list_ranges;
  lists.block_stride = s.list_blocks;
  lists.tail = lists.everything != 0 ? static_cast<std::uint32_t>(KVSIFT_TAIL_NONE) : s.c.tail;
  lists.ranges = reinterpret_cast<const kvsift_range *>(image.base + image.ranges);
  lists.range_counts = reinterpret_cast<const std::uint32_t *>(image.base + image.range_counts);
  lists.blocks = reinterpret_cast<const std::uint32_t *>(image.base + image.blocks);
  lists.block_counts = reinterpret_cast<const std::uint32_t *>(image.base + image.block_counts);
  const bool balanced = s.c.tail == KVSIFT_TAIL_BALANCE;
  lists.coreset = balanced ? reinterpret_cast<const std::uint32_t *>(image.base + image.coreset) : nullptr;
  lists.coreset_weights = balanced ? reinterpret_cast<const float *>(image.base + image.coreset_weights) : nullptr;
  lists.coreset_counts = balanced ? reinterpret_cast<const std::uint32_t *>(image.base + image.coreset_counts) : nullptr;
  lists.coreset_stride = balanced ? s.coreset.most() : 0;
  lists.missed_stride = s.c.verify_blocks;
  if (s.c.verify_blocks > 0) {
    lists.missed = reinterpret_cast<const std::uint32_t *>(image.base + image.missed);
    lists.missed_counts = reinterpret_cast<const std::uint32_t *>(image.base + image.missed_counts);
  }
  out->steps = reinterpret_cast<const kvsift_cuda_step *>(image.base + image.room.steps);
}

static_assert(sizeof(StepRecord) == sizeof(kvsift_cuda_step), "the header's steps are the kernels' records");

static kvsift_status select_on_device(const CudaJob &job, const kvsift_query &query) {
  const Policy *p = &job.policy->host;
  const CudaMethod &method = *cuda_method_of(p->s.c.method);
  const Method &twin = *method_of(p->s.c.method);
  const bool dense = job.call.layer < p->s.c.dense_layers;
  const bool everything = known_step(p, job.call.layer, query.tokens).everything;
  if (!dense && twin.evict != nullptr && p->s.c.rollback_tokens > 0) {
    const LaunchShape shape{1, job.heads(), 1, 1024, 0};
    if (kvsift_status s = launch(job.to.device, kKernel_remember_step, shape, job.to.stream, RememberArgs{job.call}, job.to.error)) {
      return s;
    }
  }
  if (method.select != nullptr) return method.select(job.to, job.call, job.heads());
  if (!dense && !everything && method.score != nullptr) {
    if (kvsift_status s = method.score(job.to, job.call, job.heads(), query)) return s;
  }
  const bool verifies = p->s.c.verify_blocks > 0 && (twin.needs & KVSIFT_NEEDS_QUERY) == 0 && !dense;
  if (verifies && !everything) {
    if (kvsift_status s = leave_late_scores(job.to, job.call, job.heads(), query.view)) return s;
  }
  ChooseArgs args{};
  args.call = job.call;
  args.kind = twin.kind;
  args.scored = method.ranks && !dense;
  args.leading = method.leading == nullptr || dense ? nullptr : method.leading(job.call);
  args.by_query = (twin.needs & KVSIFT_NEEDS_QUERY) != 0;
  args.state_rows = method.state_rows;
  args.evicts = twin.evict != nullptr;
  args.learns = learns(p);
  args.leaves_tail = method.leaves_tail && p->s.value_moments;
  args.verifies = verifies;
  args.bytes_of_block = method.bytes_of_block(p->s) + (verifies ? bytes_of_moments(p->s) : 0);
  return launch_choose(job.to, args, job.heads());
}

extern "C" kvsift_status kvsift_cuda_select_blocks(kvsift_cuda_policy *policy, uint32_t layer, const kvsift_query *query,
                                                   kvsift_cuda_selection *selection, void *stream) {
  if (!is_policy(policy)) return KVSIFT_INVALID_ARGUMENT;
  CudaPolicy *own = policy_of(policy);
  Policy *p = &own->host;
  HeadSpan span;
  if (kvsift_status s = check_usable(own)) return s;
  if (query == nullptr) return fail_in(p, KVSIFT_INVALID_ARGUMENT, "query is null");
  if (selection != nullptr && selection->struct_size < sizeof *selection) {
    return fail_in(p, KVSIFT_INVALID_STRUCT_SIZE, "selection->struct_size is ", selection->struct_size);
  }
  if (kvsift_status s = check_layer(p, layer)) return s;
  if (kvsift_status s = check_heads(p, query, &span)) return s;
  if (kvsift_status s = check_select(*own, layer, query, span)) return s;
  if (layer >= p->s.c.dense_layers && (p->s.needs & KVSIFT_NEEDS_QUERY) != 0) {
    if (kvsift_status s = check_device_query(p, query)) return s;
  } else if (query->tokens > p->s.c.max_tokens) {
    return fail_in(p, KVSIFT_CAPACITY, "query->tokens is ", query->tokens, ", max_tokens is ", p->s.c.max_tokens);
  }
  const CudaJob job = job_of(own, layer, span, query->tokens, stream);
  own->present_layer = 0;
  if (kvsift_status s = select_on_device(job, *query)) return job.done(s);
  if (has_coreset(p->s) && layer >= p->s.c.dense_layers && !known_step(p, layer, query->tokens).everything) {
    if (kvsift_status s = list_coresets(job.to, job.call, job.heads())) return job.done(s);
  }
  p->selected_for.store(query->tokens == 0 ? p->tokens + 1 : query->tokens, std::memory_order_relaxed);
  if (selection != nullptr) describe_choice(*own, layer, query->tokens, selection);
  return KVSIFT_OK;
}

extern "C" kvsift_status kvsift_cuda_predict_next(kvsift_cuda_policy *policy, uint32_t layer, const kvsift_query *heads,
                                                  void *stream) {
  if (!is_policy(policy)) return KVSIFT_INVALID_ARGUMENT;
  CudaPolicy *own = policy_of(policy);
  const Policy *p = &own->host;
  HeadSpan span;
  if (kvsift_status s = check_usable(own)) return s;
  const CudaMethod &method = *cuda_method_of(p->s.c.method);
  if (method.predict == nullptr) {
    return fail_in(p, KVSIFT_UNSUPPORTED, "method ", method_of(p->s.c.method)->name, " predicts nothing ahead of the query");
  }
  if (kvsift_status s = check_layer(p, layer)) return s;
  if (kvsift_status s = check_heads(p, heads, &span)) return s;
  if (layer < p->s.c.dense_layers) return KVSIFT_OK;
  const CudaJob job = job_of(own, layer, span, 0, stream);
  return job.done(method.predict(job.to, job.call, job.heads()));
}

extern "C" kvsift_status kvsift_cuda_advance(kvsift_cuda_policy *policy, uint32_t tokens, void *stream) {
  if (!is_policy(policy)) return KVSIFT_INVALID_ARGUMENT;
  CudaPolicy *own = policy_of(policy);
  Policy *p = &own->host;
  if (kvsift_status s = check_usable(own)) return s;
  if (tokens > p->s.c.max_tokens - p->tokens) {
    return fail_in(p, KVSIFT_CAPACITY, "tokens is ", tokens, ", the policy is at ", p->tokens, " of max_tokens ",
                   p->s.c.max_tokens);
  }
  if (tokens == 0) return KVSIFT_OK;
  for (std::uint32_t layer = p->s.c.dense_layers; layer < p->s.c.layers && (p->s.needs & KVSIFT_NEEDS_KEYS) != 0; ++layer) {
    for (std::uint32_t head = 0; head < p->s.c.kv_heads; ++head) {
      const std::uint32_t seen = own->seen(own->keys_seen, layer)[head];
      if (seen == p->tokens + tokens) continue;
      return fail_in(p, KVSIFT_OUT_OF_ORDER, "tokens ends the step at ", p->tokens + tokens, ", KV head ", head, " of layer ",
                     layer, " has keys of ", seen);
    }
  }
  const LaunchShape one{1, 1, 1, 32, 0};
  const kvsift_status status = launch(own->device, kKernel_advance_tokens, one, stream, AdvanceArgs{own->image, tokens}, &p->error);
  if (status != KVSIFT_OK) return own->lost = status;
  if (p->selected_for.load(std::memory_order_relaxed) > p->tokens) {
    if (p->decode_steps == 0) p->first_prompt = p->tokens;
    p->decode_steps += tokens;
  } else {
    p->prompt_end = p->tokens + tokens;
  }
  p->tokens += tokens;
  return KVSIFT_OK;
}

extern "C" kvsift_status kvsift_cuda_replayed(kvsift_cuda_policy *policy, uint32_t steps, uint32_t captured) {
  if (!is_policy(policy)) return KVSIFT_INVALID_ARGUMENT;
  CudaPolicy *own = policy_of(policy);
  Policy *p = &own->host;
  if (captured > 1 || captured > p->decode_steps) {
    return fail_in(p, KVSIFT_INVALID_ARGUMENT, "captured is ", captured, ", neither 0 nor 1 of ", p->decode_steps, " steps");
  }
  if (steps > p->s.c.max_tokens - (p->tokens - captured)) {
    return fail_in(p, KVSIFT_CAPACITY, "steps is ", steps, ", the policy is at ", p->tokens - captured, " of max_tokens ",
                   p->s.c.max_tokens);
  }
  p->tokens = p->tokens - captured + steps;
  p->decode_steps = p->decode_steps - captured + steps;
  p->selected_for.store(p->tokens, std::memory_order_relaxed);
  for (std::uint32_t layer = p->s.c.dense_layers; layer < p->s.c.layers; ++layer) {
    for (std::uint32_t head = 0; head < p->s.c.kv_heads; ++head) {
      if ((p->s.needs & KVSIFT_NEEDS_KEYS) != 0) own->seen(own->keys_seen, layer)[head] = p->tokens;
      if ((p->s.needs & KVSIFT_NEEDS_ATTENTION) != 0) own->seen(own->rows_seen, layer)[head] = p->tokens;
    }
  }
  return KVSIFT_OK;
}

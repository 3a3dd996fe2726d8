// Device policies go back.
#include "kvsift/kvsift_cuda.h"

#include "cuda/methods/method.h"
#include "cuda/policy/coreset.h"
#include "cuda/policy/steps.h"
#include "cuda_check.h"
#include "methods/method.h"
#include "policy/coreset.h"

using namespace kvsift;

static bool evicts(const Policy *p) { return method_of(p->s.c.method)->evict != nullptr; }

// How far a unit has gone, as the host knows it: what lies beyond `tokens` must be in its undo ring.
static std::uint32_t reach_of(const CudaPolicy &own, std::uint32_t layer, std::uint32_t head) {
  const Policy *p = &own.host;
  const std::uint32_t keys = own.seen(own.keys_seen, layer)[head], rows = own.seen(own.rows_seen, layer)[head];
  const std::uint32_t selected = evicts(p) ? p->selected_for.load(std::memory_order_relaxed) : 0;
  const std::uint32_t most = keys > rows ? keys : rows;
  return most > selected ? most : selected;
}

// Tokens that the coresets have taken, at least. One that closes takes none that were decoded, but for the first.
static std::uint32_t taken_by_coreset(const CudaPolicy &own, std::uint32_t layer, std::uint32_t head) {
  const Policy *p = &own.host;
  const std::uint32_t seen = own.seen(own.keys_seen, layer)[head];
  if (!p->s.coreset.closes || p->decode_steps == 0) return seen;
  return seen < p->first_prompt + 1 ? seen : p->first_prompt + 1;
}

// Whether the unit cannot go back so far, as far as the host can tell.
static bool out_of_reach(const CudaPolicy &own, std::uint32_t layer, std::uint32_t head, std::uint32_t tokens) {
  const Policy *p = &own.host;
  const bool undoes = own.image.at.step_end > own.image.at.step_begin || method_of(p->s.c.method)->can_truncate != nullptr;
  const std::uint32_t reach = reach_of(own, layer, head);
  if (undoes && reach > tokens && reach - tokens > p->s.c.rollback_tokens) return true;
  return has_coreset(p->s) && !coreset_reaches(p->s.coreset, taken_by_coreset(own, layer, head), tokens);
}

static kvsift_status check_truncate(const CudaPolicy &own, std::uint32_t tokens) {
  const Policy *p = &own.host;
  const Method &method = *method_of(p->s.c.method);
  if (tokens > p->tokens) {
    return fail_in(p, KVSIFT_INVALID_ARGUMENT, "tokens is ", tokens, ", the policy is only ", p->tokens, " tokens on");
  }
  if ((method.prefill_rows != nullptr || method.keep != nullptr) && tokens < p->prompt_end) {
    return fail_in(p, KVSIFT_ROLLBACK, "tokens is ", tokens, ", method ", method.name, " cannot go back into the prompt of ",
                   p->prompt_end, " tokens");
  }
  for (std::uint32_t layer = p->s.c.dense_layers; layer < p->s.c.layers; ++layer) {
    for (std::uint32_t head = 0; head < p->s.c.kv_heads; ++head) {
      if (!out_of_reach(own, layer, head, tokens)) continue;
      const std::uint32_t reach = reach_of(own, layer, head);
      return fail_in(p, KVSIFT_ROLLBACK, "tokens is ", tokens, ", ", reach - tokens, " back from ", reach,
                     "; config.rollback_tokens is ", p->s.c.rollback_tokens);
    }
  }
  return KVSIFT_OK;
}

static kvsift_status truncate_on_device(const CudaJob &job, std::uint32_t tokens) {
  const Settings &s = job.policy->host.s;
  const CudaMethod &method = *cuda_method_of(s.c.method);
  for (std::uint32_t layer = s.c.dense_layers; layer < s.c.layers && method.truncate != nullptr; ++layer) {
    Call call = job.call;
    call.layer = layer;
    if (kvsift_status status = method.truncate(job.to, call, job.heads(), tokens)) return status;
  }
  if (has_coreset(s)) {
    if (kvsift_status status = truncate_coresets(job.to, job.call, tokens)) return status;
  }
  const TruncateArgs args{job.call, tokens, evicts(&job.policy->host)};
  const LaunchShape units{s.sparse_layers, s.c.kv_heads, 1, 256, 0}, one{1, 1, 1, 32, 0};
  if (kvsift_status status = launch(job.to.device, kKernel_truncate_unit, units, job.to.stream, args, job.to.error)) return status;
  return launch(job.to.device, kKernel_truncate_counters, one, job.to.stream, args, job.to.error);
}

extern "C" kvsift_status kvsift_cuda_truncate(kvsift_cuda_policy *policy, uint32_t tokens, void *stream) {
  if (!is_policy(policy)) return KVSIFT_INVALID_ARGUMENT;
  CudaPolicy *own = policy_of(policy);
  Policy *p = &own->host;
  if (kvsift_status s = check_usable(own)) return s;
  if (kvsift_status s = check_truncate(*own, tokens)) return s;
  const CudaJob job = job_of(own, p->s.c.dense_layers, HeadSpan{0, p->s.c.kv_heads}, tokens, stream);
  if (kvsift_status s = truncate_on_device(job, tokens)) return job.done(s);
  const Progress now = truncated(Progress{p->tokens, p->decode_steps, p->prompt_end, p->first_prompt, 0}, tokens);
  p->tokens = now.tokens;
  p->decode_steps = now.decode_steps;
  p->prompt_end = now.prompt_end;
  p->first_prompt = now.first_prompt;
  p->selected_for.store(0, std::memory_order_relaxed);
  for (std::uint32_t layer = p->s.c.dense_layers; layer < p->s.c.layers; ++layer) {
    for (std::uint32_t head = 0; head < p->s.c.kv_heads; ++head) {
      std::uint32_t *keys = own->seen(own->keys_seen, layer) + head, *rows = own->seen(own->rows_seen, layer) + head;
      if (*keys > tokens) *keys = tokens;
      if (*rows > tokens) *rows = tokens;
    }
  }
  return KVSIFT_OK;
}

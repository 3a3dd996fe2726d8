// A prompt on the device: its attention, and what methods learn from its last queries.
#include "kvsift/kvsift_cuda.h"

#include "cuda/attend/causal.h"
#include "cuda/attend/launch.h"
#include "cuda/attend/prefill.h"
#include "cuda/methods/method.h"
#include "cuda_check.h"
#include "methods/method.h"

using namespace kvsift;

static std::uint32_t rows_of(const kvsift_query &query) { return query.rows == 0 ? 1 : query.rows; }

static kvsift_status check_prompt(CudaPolicy *own, std::uint32_t layer, const kvsift_query *query, const kvsift_cache *cache,
                                  HeadSpan *span) {
  const Policy *p = &own->host;
  if (kvsift_status s = check_usable(own)) return s;
  if (query == nullptr) return fail_in(p, KVSIFT_INVALID_ARGUMENT, "query is null");
  if (kvsift_status s = check_layer(p, layer)) return s;
  if (kvsift_status s = check_heads(p, query, span)) return s;
  if (kvsift_status s = check_view(p, "query->view", query->view)) return s;
  return check_cache(p, cache, query->tokens);
}

static bool learns_from_prompt(const Policy *p, std::uint32_t layer) {
  return layer >= p->s.c.dense_layers && method_of(p->s.c.method)->prefill_rows != nullptr &&
         cuda_method_of(p->s.c.method)->observe != nullptr;
}

// Rows of the call's last queries to the method.
static kvsift_status observe_last_rows(const CudaJob &job, const kvsift_query &query, const kvsift_cache &cache) {
  const Policy *p = &job.policy->host;
  const Method &twin = *method_of(p->s.c.method);
  const CudaMethod &method = *cuda_method_of(p->s.c.method);
  const std::uint32_t wanted = twin.prefill_rows(p->s), rows = rows_of(query);
  const PrefillJob prefill{query, cache, wanted < rows ? wanted : rows, (twin.needs & KVSIFT_NEEDS_MASS) != 0};
  const std::uint64_t behind = method.room_bytes(p->s) - prefill_places(p->s).bytes;
  char *room = job.call.image.base + job.call.image.room.method + behind;
  if (kvsift_status s = prefill_rows(job.to, job.call, job.heads(), prefill, room, method.observe)) return s;
  std::uint32_t *seen = job.policy->seen(job.policy->rows_seen, job.call.layer);
  for (std::uint32_t head = job.span.begin; head < job.span.end; ++head) seen[head] = query.tokens;
  return KVSIFT_OK;
}

extern "C" kvsift_status kvsift_cuda_observe_prompt(kvsift_cuda_policy *policy, uint32_t layer, const kvsift_query *query,
                                                    const kvsift_cache *cache, void *stream) {
  if (!is_policy(policy)) return KVSIFT_INVALID_ARGUMENT;
  CudaPolicy *own = policy_of(policy);
  const Policy *p = &own->host;
  HeadSpan span;
  if (kvsift_status s = check_prompt(own, layer, query, cache, &span)) return s;
  const std::uint32_t rows = rows_of(*query);
  if (query->tokens > p->s.c.max_tokens || rows > query->tokens || query->tokens - rows < p->tokens) {
    return fail_in(p, KVSIFT_OUT_OF_ORDER, "query->tokens ", query->tokens, " with rows ", rows,
                   " does not follow on from the policy's ", p->tokens, " tokens");
  }
  if (!learns_from_prompt(p, layer)) return KVSIFT_OK;
  const CudaJob job = job_of(own, layer, span, query->tokens, stream);
  return job.done(observe_last_rows(job, *query, *cache));
}

// As on the CPU: rows may be asked for again where no method learns from them.
static kvsift_status check_order(CudaPolicy *own, std::uint32_t layer, const kvsift_query &query, HeadSpan span) {
  const Policy *p = &own->host;
  const std::uint32_t rows = rows_of(query);
  if (rows > query.tokens) {
    return fail_in(p, KVSIFT_INVALID_ARGUMENT, "query->rows is ", rows, ", more than query->tokens ", query.tokens);
  }
  if (query.tokens > p->s.c.max_tokens) {
    return fail_in(p, KVSIFT_CAPACITY, "query->tokens is ", query.tokens, ", max_tokens is ", p->s.c.max_tokens);
  }
  if (query.tokens <= p->tokens) {
    return fail_in(p, KVSIFT_OUT_OF_ORDER, "query->tokens is ", query.tokens, ", the policy is ", p->tokens, " tokens on");
  }
  for (std::uint32_t head = span.begin; head < span.end && learns_from_prompt(p, layer); ++head) {
    const std::uint32_t rows_seen = own->seen(own->rows_seen, layer)[head], seen = rows_seen > p->tokens ? rows_seen : p->tokens;
    if (query.tokens > seen && rows <= query.tokens - seen) continue;
    return fail_in(p, KVSIFT_OUT_OF_ORDER, "query->rows is ", rows, " of ", query.tokens, " tokens, KV head ", head,
                   " of layer ", layer, " has rows up to ", seen);
  }
  return KVSIFT_OK;
}

extern "C" kvsift_status kvsift_cuda_prefill_attend(kvsift_cuda_policy *policy, uint32_t layer, const kvsift_query *query,
                                                    const kvsift_cache *cache, float *out, void *stream) {
  if (!is_policy(policy)) return KVSIFT_INVALID_ARGUMENT;
  CudaPolicy *own = policy_of(policy);
  const Policy *p = &own->host;
  HeadSpan span;
  if (kvsift_status s = check_prompt(own, layer, query, cache, &span)) return s;
  if (out == nullptr) return fail_in(p, KVSIFT_INVALID_ARGUMENT, "out is null");
  if (kvsift_status s = check_order(own, layer, *query, span)) return s;
  const CudaJob job = job_of(own, layer, span, query->tokens, stream);
  const CacheArgs at = cache_args(*cache);
  const CausalArgs args{job.call, query->view, at.keys, at.values, at.table, at.table_stride, at.page_shift, rows_of(*query), out};
  if (kvsift_status s = causal_attend(job.to, args, job.heads())) return job.done(s);
  if (!learns_from_prompt(p, layer)) return KVSIFT_OK;
  return job.done(observe_last_rows(job, *query, *cache));
}

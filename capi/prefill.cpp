// Exact causal attention of a prompt; methods learn from its last rows on the way.
#include "attend/prefill.h"

#include "attend/attend.h"
#include "check.h"
#include "methods/method.h"
#include "policy/observe.h"

using namespace kvsift;

// Full rows of the call's last queries, oldest first, to one KV head's method.
static void observe_last_rows(const HeadState &state, const Prefill &job, std::uint32_t wanted) {
  const Settings &s = state.settings();
  const std::uint32_t rows = job.rows < wanted ? job.rows : wanted;
  float queries[KVSIFT_MAX_GROUP * KVSIFT_MAX_HEAD_DIM];
  float log_sum_exp[KVSIFT_MAX_GROUP];
  const Scratch room = row_room(state);
  for (std::uint32_t row = job.rows - rows; row < job.rows; ++row) {
    const std::uint32_t tokens = job.tokens - job.rows + row + 1;
    prefill_queries(job, row, queries);
    const Head head{job.kernels, queries, job.group, job.dim, job.scale, job.keys, job.values};
    Attended result{};
    result.log_sum_exp = log_sum_exp;
    result.block_max = room.scores;
    result.block_mass = room.spare;
    result.block_stride = room.stride;
    result.block_tokens = s.c.block_tokens;
    result.blocks = blocks_of(tokens, s.c.block_tokens);
    attend_row(head, tokens, result);
    observe_pooled(state, PooledRows{tokens, true, true, room.scores, room.spare, log_sum_exp, room.stride});
  }
}

extern "C" kvsift_status kvsift_prefill_attend(kvsift_policy *policy, uint32_t layer, const kvsift_query *query,
                                               const kvsift_cache *cache, float *out) {
  if (!is_policy(policy)) return KVSIFT_INVALID_ARGUMENT;
  Policy *p = policy_of(policy);
  HeadSpan span;
  if (query == nullptr) return fail_in(p, KVSIFT_INVALID_ARGUMENT, "query is null");
  if (out == nullptr) return fail_in(p, KVSIFT_INVALID_ARGUMENT, "out is null");
  if (kvsift_status s = check_layer(p, layer)) return s;
  if (kvsift_status s = check_heads(p, query, &span)) return s;
  if (query->tokens <= p->tokens || query->tokens > p->s.c.max_tokens) {
    return fail_in(p, KVSIFT_OUT_OF_ORDER, "query->tokens is ", query->tokens, ", not in ", p->tokens + 1, " .. ",
                   p->s.c.max_tokens);
  }
  if (kvsift_status s = check_cache(p, cache, query->tokens)) return s;
  if (kvsift_status s = check_query(p, query, span)) return s;
  const Settings &s = p->s;
  const Method &method = *method_of(s.c.method);
  for (std::uint32_t i = span.begin; i < span.end; ++i) {
    const std::uint32_t rows = query->rows == 0 ? 1 : query->rows;
    Prefill job{kernels(p->level), &query->view, i * s.group, s.group, s.c.head_dim, s.scale,
                head_rows(*cache, cache->keys, i), head_rows(*cache, cache->values, i), query->tokens, rows,
                out + std::uint64_t{i} * s.group * s.c.head_dim,
                static_cast<std::size_t>(s.c.query_heads) * s.c.head_dim};
    prefill_attend(job);
    if (layer >= s.c.dense_layers && method.prefill_rows != nullptr) {
      observe_last_rows(head_of(p, layer, i), job, method.prefill_rows(s));
    }
  }
  return KVSIFT_OK;
}

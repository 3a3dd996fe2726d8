// Exact causal attention of a prompt; methods learn from its last rows on the way.
#include "attend/prefill.h"

#include "attend/attend.h"
#include "check.h"
#include "methods/method.h"
#include "policy/coreset.h"
#include "policy/observe.h"

using namespace kvsift;

// Full rows of the call's last queries, oldest first, to one KV head's method.
static void observe_last_rows(const HeadState &state, const Prefill &job, std::uint32_t wanted) {
  const Settings &s = state.settings();
  const std::uint32_t rows = job.rows < wanted ? job.rows : wanted;
  float queries[KVSIFT_MAX_GROUP * KVSIFT_MAX_HEAD_DIM];
  float log_sum_exp[KVSIFT_MAX_GROUP];
  const Scratch room = row_room(state);
  const bool masses = (s.needs & KVSIFT_NEEDS_MASS) != 0;
  for (std::uint32_t row = job.rows - rows; row < job.rows; ++row) {
    const std::uint32_t tokens = job.tokens - job.rows + row + 1;
    prefill_queries(job, row, queries);
    const Head head{job.kernels, queries, job.group, job.dim, job.scale, job.keys, job.values};
    Attended result{};
    result.log_sum_exp = log_sum_exp;
    result.block_max = masses ? nullptr : room.scores;
    result.block_mass = masses ? room.spare : nullptr;
    result.chunk_max = room.choice;
    result.block_stride = room.stride;
    result.block_tokens = s.c.block_tokens;
    result.blocks = blocks_of(tokens, s.c.block_tokens);
    attend_row(head, tokens, result);
    observe_pooled(state, PooledRows{tokens, true, true, result.block_max, result.block_mass, log_sum_exp, room.stride});
  }
}

// Pages of all tokens, and the rows that are new; those before them were checked when they were new.
static kvsift_status check_rows(const Policy *p, const kvsift_query &query, const kvsift_cache &cache, HeadSpan span) {
  const std::uint32_t begin = query.tokens - (query.rows == 0 ? 1 : query.rows);
  for (std::uint32_t head = span.begin; head < span.end; ++head) {
    if (kvsift_status s = check_table(p, cache, head, 0, query.tokens)) return s;
    if (kvsift_status s = check_finite(p, cache, head, begin, query.tokens)) return s;
  }
  return KVSIFT_OK;
}

// A method must not learn from a row twice.
static kvsift_status check_order(const Policy *p, std::uint32_t layer, const kvsift_query &query, HeadSpan span) {
  if (query.tokens > p->s.c.max_tokens) {
    return fail_in(p, KVSIFT_CAPACITY, "query->tokens is ", query.tokens, ", max_tokens is ", p->s.c.max_tokens);
  }
  if (query.tokens <= p->tokens) {
    return fail_in(p, KVSIFT_OUT_OF_ORDER, "query->tokens is ", query.tokens, ", the policy is ", p->tokens, " tokens on");
  }
  if (layer < p->s.c.dense_layers || method_of(p->s.c.method)->prefill_rows == nullptr) return KVSIFT_OK;
  const std::uint32_t rows = query.rows == 0 ? 1 : query.rows;
  for (std::uint32_t head = span.begin; head < span.end; ++head) {
    const std::uint32_t rows_seen = head_of(const_cast<Policy *>(p), layer, head).unit->rows_seen;
    const std::uint32_t seen = rows_seen > p->tokens ? rows_seen : p->tokens;
    if (query.tokens > seen && rows <= query.tokens - seen) continue;
    return fail_in(p, KVSIFT_OUT_OF_ORDER, "query->rows is ", rows, " of ", query.tokens, " tokens, KV head ", head,
                   " of layer ", layer, " has rows up to ", seen);
  }
  return KVSIFT_OK;
}

// A prompt is graded as far as its keys came.
static kvsift_status check_keys(const Policy *p, std::uint32_t layer, const kvsift_query &query, HeadSpan span) {
  if (layer < p->s.c.dense_layers || !is_graded(p->s)) return KVSIFT_OK;
  for (std::uint32_t head = span.begin; head < span.end; ++head) {
    const std::uint32_t seen = head_of(const_cast<Policy *>(p), layer, head).unit->keys_seen;
    if (seen == query.tokens) continue;
    return fail_in(p, KVSIFT_OUT_OF_ORDER, "query->tokens is ", query.tokens, ", KV head ", head, " of layer ", layer,
                   " has keys of ", seen, " tokens: kvsift_observe_keys comes first");
  }
  return KVSIFT_OK;
}

static Prefill job_of(const Policy *p, const kvsift_query &query, const kvsift_cache &cache, std::uint32_t head,
                      float *out) {
  const Settings &s = p->s;
  return Prefill{kernels(p->level), &query.view, head * s.group, s.group, s.c.head_dim, s.scale,
                 head_rows(cache, cache.keys, head), head_rows(cache, cache.values, head), query.tokens,
                 query.rows == 0 ? 1 : query.rows, out + std::uint64_t{head} * s.group * s.c.head_dim,
                 static_cast<std::size_t>(s.c.query_heads) * s.c.head_dim};
}

// Logits that overflow, or older rows gone bad, show in the output.
static kvsift_status check_out(const Policy *p, const Prefill &job, std::uint32_t head) {
  const std::uint64_t row_bytes = std::uint64_t{job.dim} * sizeof(float);
  for (std::uint32_t row = 0; row < job.rows; ++row) {
    const Rows rows{reinterpret_cast<const std::uint8_t *>(job.out + row * job.out_row_stride), KVSIFT_F32, row_bytes,
                    nullptr, 0};
    if (job.kernels->array.rows_finite(rows, job.group, job.dim)) continue;
    return fail_in(p, KVSIFT_NOT_FINITE, "cache: attention of row ", row, " of KV head ", head,
                   " is not finite: keys, values or the query overflow");
  }
  return KVSIFT_OK;
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
  if (kvsift_status s = check_query(p, query, span)) return s;
  const std::uint64_t row_bytes = std::uint64_t{p->s.c.query_heads} * p->s.c.head_dim * sizeof(float);
  if (overlap(out, (query->rows == 0 ? 1 : query->rows) * row_bytes, p, p->bytes)) {
    return fail_in(p, KVSIFT_INVALID_ARGUMENT, "out lies in the policy's arena");
  }
  if (kvsift_status s = check_order(p, layer, *query, span)) return s;
  if (kvsift_status s = check_keys(p, layer, *query, span)) return s;
  if (kvsift_status s = check_cache(p, cache, query->tokens)) return s;
  if (kvsift_status s = check_rows(p, *query, *cache, span)) return s;
  for (std::uint32_t i = span.begin; i < span.end; ++i) {
    const Prefill job = job_of(p, *query, *cache, i, out);
    prefill_attend(job);
    if (kvsift_status s = check_out(p, job, i)) return s;
  }
  if (layer < p->s.c.dense_layers) return KVSIFT_OK;
  for (std::uint32_t i = span.begin; i < span.end && is_graded(p->s) && p->decode_steps == 0; ++i) {
    grade_prompt(head_of(p, layer, i), job_of(p, *query, *cache, i, out));
  }
  const Method &method = *method_of(p->s.c.method);
  if (method.prefill_rows == nullptr) return KVSIFT_OK;
  for (std::uint32_t i = span.begin; i < span.end; ++i) {
    observe_last_rows(head_of(p, layer, i), job_of(p, *query, *cache, i, out), method.prefill_rows(p->s));
  }
  return KVSIFT_OK;
}

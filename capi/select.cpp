// Keys in, choices out.
#include "check.h"
#include "methods/method.h"
#include "policy/coreset.h"
#include "policy/lists.h"
#include "policy/pages.h"
#include "policy/select.h"

using namespace kvsift;

static kvsift_status check_new_keys(const Policy *p, const kvsift_view *view, const char *name, HeadSpan span,
                                    std::uint32_t tokens) {
  if (kvsift_status s = check_view(p, name, *view)) return s;
  for (std::uint32_t head = span.begin; head < span.end; ++head) {
    std::uint32_t count = tokens;
    const Rows rows = HeadRows{view, nullptr, 0, head}.stretch(0, &count);
    if (!kernels(p->level)->array.rows_finite(rows, count, p->s.c.head_dim)) {
      return fail_in(p, KVSIFT_NOT_FINITE, name, ": NaN or infinity in KV head ", head);
    }
  }
  return KVSIFT_OK;
}

extern "C" kvsift_status kvsift_observe_keys(kvsift_policy *policy, uint32_t layer, const kvsift_query *heads,
                                             uint32_t first_token, uint32_t tokens, const kvsift_view *keys,
                                             const kvsift_view *values) {
  if (!is_policy(policy)) return KVSIFT_INVALID_ARGUMENT;
  Policy *p = policy_of(policy);
  HeadSpan span;
  if (kvsift_status s = check_layer(p, layer)) return s;
  if (kvsift_status s = check_heads(p, heads, &span)) return s;
  if (tokens > p->s.c.max_tokens || first_token > p->s.c.max_tokens - tokens) {
    return fail_in(p, KVSIFT_CAPACITY, "first_token ", first_token, " plus tokens ", tokens, " is beyond max_tokens ",
                   p->s.c.max_tokens);
  }
  if (layer < p->s.c.dense_layers || (p->s.needs & KVSIFT_NEEDS_KEYS) == 0 || tokens == 0) return KVSIFT_OK;
  if (keys == nullptr) return fail_in(p, KVSIFT_INVALID_ARGUMENT, "keys is null");
  if (kvsift_status s = check_new_keys(p, keys, "keys", span, tokens)) return s;
  const bool with_values = (p->s.needs & KVSIFT_NEEDS_VALUES) != 0;
  if (with_values) {
    if (values == nullptr) return fail_in(p, KVSIFT_INVALID_ARGUMENT, "values is null, this policy's tail needs them");
    if (kvsift_status s = check_new_keys(p, values, "values", span, tokens)) return s;
  }
  for (std::uint32_t head = span.begin; head < span.end; ++head) {
    const std::uint32_t seen = head_of(p, layer, head).unit->keys_seen;
    if (seen == first_token) continue;
    return fail_in(p, KVSIFT_OUT_OF_ORDER, "first_token is ", first_token, ", KV head ", head, " of layer ", layer,
                   " has keys of ", seen, " tokens");
  }
  for (std::uint32_t head = span.begin; head < span.end; ++head) {
    const HeadRows key_rows{keys, nullptr, 0, head}, value_rows{with_values ? values : keys, nullptr, 0, head};
    append_keys(head_of(p, layer, head), key_rows, value_rows, tokens);
    if (has_coreset(p->s)) observe_coreset(head_of(p, layer, head), key_rows, value_rows, tokens);
  }
  return KVSIFT_OK;
}

static kvsift_status check_select(const Policy *p, std::uint32_t layer, const kvsift_query *query, HeadSpan span) {
  if (query->tokens <= p->tokens) {
    return fail_in(p, KVSIFT_OUT_OF_ORDER, "query->tokens is ", query->tokens, ", the policy is ", p->tokens,
                   " tokens on: the new token counts");
  }
  if (query->tokens > p->s.c.max_tokens) {
    return fail_in(p, KVSIFT_CAPACITY, "query->tokens is ", query->tokens, ", max_tokens is ", p->s.c.max_tokens);
  }
  if (query->rows > 1) {
    return fail_in(p, KVSIFT_INVALID_ARGUMENT, "query->rows is ", query->rows, ": a selection is for one query");
  }
  if (layer < p->s.c.dense_layers) return KVSIFT_OK;
  for (std::uint32_t head = span.begin; head < span.end && (p->s.needs & KVSIFT_NEEDS_KEYS) != 0; ++head) {
    const std::uint32_t seen = p->unit(layer - p->s.c.dense_layers, head)->keys_seen;
    if (seen >= query->tokens) continue;
    return fail_in(p, KVSIFT_OUT_OF_ORDER, "query->tokens is ", query->tokens, ", KV head ", head, " of layer ", layer,
                   " has keys of ", seen, " tokens: kvsift_observe_keys comes first");
  }
  return KVSIFT_OK;
}

static void fill(const Policy *p, const Step &step, bool dense, kvsift_selection *out) {
  const Settings &s = p->s;
  out->tokens = step.tokens;
  out->lists = s.lists * s.c.kv_heads;
  out->per_query_head = s.c.grouping == KVSIFT_GROUP_QUERY_HEAD;
  out->calibration = !dense && step.calibration;
  out->everything = dense || step.everything || (step.calibration && s.c.calibration_dense != 0);
  out->block_tokens = s.c.block_tokens;
  out->range_stride = s.list_ranges;
  out->block_stride = s.list_blocks;
  out->tail = s.c.tail;
  if (out->everything != 0) out->tail = KVSIFT_TAIL_NONE;
  out->ranges = p->ranges.in(p);
  out->range_counts = p->range_counts.in(p);
  out->blocks = p->blocks.in(p);
  out->block_counts = p->block_counts.in(p);
  const bool balanced = s.c.tail == KVSIFT_TAIL_BALANCE;
  out->coreset = balanced ? p->coreset.in(p) : nullptr;
  out->coreset_weights = balanced ? p->coreset_weights.in(p) : nullptr;
  out->coreset_counts = balanced ? p->coreset_counts.in(p) : nullptr;
  out->coreset_stride = balanced ? s.coreset.most() : 0;
  out->missed_stride = s.c.verify_blocks;
  out->missed = s.c.verify_blocks > 0 ? p->missed.in(p) : nullptr;
  out->missed_counts = s.c.verify_blocks > 0 ? p->missed_counts.in(p) : nullptr;
}

extern "C" kvsift_status kvsift_select_blocks(kvsift_policy *policy, uint32_t layer, const kvsift_query *query,
                                              kvsift_selection *selection) {
  if (!is_policy(policy)) return KVSIFT_INVALID_ARGUMENT;
  Policy *p = policy_of(policy);
  HeadSpan span;
  if (query == nullptr) return fail_in(p, KVSIFT_INVALID_ARGUMENT, "query is null");
  if (selection == nullptr) return fail_in(p, KVSIFT_INVALID_ARGUMENT, "selection is null");
  if (selection->struct_size < sizeof *selection) {
    return fail_in(p, KVSIFT_INVALID_STRUCT_SIZE, "selection->struct_size is ", selection->struct_size);
  }
  if (kvsift_status s = check_layer(p, layer)) return s;
  if (kvsift_status s = check_heads(p, query, &span)) return s;
  if (kvsift_status s = check_select(p, layer, query, span)) return s;
  const bool dense = layer < p->s.c.dense_layers;
  const Step step = dense ? Step{query->tokens, true, false} : step_at(*p, query->tokens);
  const bool reads = !dense && !step.everything && (p->s.needs & KVSIFT_NEEDS_QUERY) != 0;
  if (reads) {
    if (kvsift_status s = check_query(p, query, span)) return s;
  }
  for (std::uint32_t i = span.begin; i < span.end; ++i) {
    if (dense) {
      select_dense(p, layer, i, query->tokens);
      continue;
    }
    const HeadState head = head_of(p, layer, i);
    float *rows = head.scratch().queries;
    if (reads) widen_queries(p, *query, i, 0, rows);
    select_head(head, step, reads ? rows : nullptr);
  }
  p->selected_for.store(query->tokens, std::memory_order_relaxed);
  fill(p, step, dense, selection);
  return KVSIFT_OK;
}

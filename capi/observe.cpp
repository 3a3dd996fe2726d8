// Attention fed back, steps counted.
#include <cmath>

#include "check.h"
#include "methods/method.h"
#include "policy/observe.h"

using namespace kvsift;

// NaN fails each comparison; minus infinity stands for blocks that were not attended to.
static bool peak_fits(float max, float most) { return max <= most; }
static bool share_fits(float share) { return (share >= 0) & (share <= 1.01f); }

// Pooled logits and shares of one query head.
static kvsift_status check_pooled(const Policy *p, const kvsift_observation &o, std::uint32_t q, std::uint32_t blocks) {
  const float lse = o.log_sum_exp[q], most = lse + 1e-2f * (1 + std::fabs(lse));
  const float *max = o.block_max == nullptr ? nullptr : o.block_max + q * std::uint64_t{o.block_stride};
  const float *mass = o.block_mass == nullptr ? nullptr : o.block_mass + q * std::uint64_t{o.block_stride};
  if (!std::isfinite(lse)) return fail_in(p, KVSIFT_NOT_FINITE, "observation->log_sum_exp[", q, "] is ", lse);
  // What is certainly right is seen at once; the others are looked at one by one.
  const ArrayKernels &k = kernels(p->level)->array;
  bool certain = true;
  if (max != nullptr) certain = k.within(max, blocks, -INFINITY, most);
  if (mass != nullptr) certain &= k.within(mass, blocks, 0, 1.01f);
  for (std::uint32_t i = 0; !certain && i < blocks; ++i) {
    if (max != nullptr && !peak_fits(max[i], most)) {
      return fail_in(p, KVSIFT_NOT_FINITE, "observation->block_max of query head ", q, ", block ", i, " is ", max[i],
                     ", the log-sum-exp ", lse);
    }
    if (mass == nullptr || share_fits(mass[i])) continue;
    return fail_in(p, KVSIFT_NOT_FINITE, "observation->block_mass of query head ", q, ", block ", i, " is ", mass[i]);
  }
  return KVSIFT_OK;
}

static kvsift_status check_block_form(const Policy *p, const kvsift_observation &o, HeadSpan span) {
  const std::uint32_t blocks = blocks_of(o.tokens, p->s.c.block_tokens);
  if (kvsift_status s = check_block_buffers(p, o, blocks)) return s;
  for (std::uint32_t q = span.begin * p->s.group; q < span.end * p->s.group; ++q) {
    if (kvsift_status s = check_pooled(p, o, q, blocks)) return s;
  }
  return KVSIFT_OK;
}

static kvsift_status check_row_form(const Policy *p, const kvsift_observation &o, HeadSpan span) {
  if (o.row_stride < o.tokens) {
    return fail_in(p, KVSIFT_INVALID_ARGUMENT, "observation->row_stride is ", o.row_stride, ", less than tokens ",
                   o.tokens);
  }
  for (std::uint32_t q = span.begin * p->s.group; q < span.end * p->s.group; ++q) {
    for (std::uint32_t t = 0; t < o.tokens; ++t) {
      const float share = o.rows[q * o.row_stride + t];
      if (share >= 0 && share <= 1.01f) continue;
      return fail_in(p, KVSIFT_NOT_FINITE, "observation->rows of query head ", q, ", token ", t, " is ", share,
                     ", no probability");
    }
  }
  return KVSIFT_OK;
}

extern "C" kvsift_status kvsift_observe_attention(kvsift_policy *policy, uint32_t layer, const kvsift_query *heads,
                                                  const kvsift_observation *observation) {
  if (!is_policy(policy)) return KVSIFT_INVALID_ARGUMENT;
  Policy *p = policy_of(policy);
  HeadSpan span;
  if (observation == nullptr) return fail_in(p, KVSIFT_INVALID_ARGUMENT, "observation is null");
  if (observation->struct_size < sizeof *observation) {
    return fail_in(p, KVSIFT_INVALID_STRUCT_SIZE, "observation->struct_size is ", observation->struct_size);
  }
  if (kvsift_status s = check_layer(p, layer)) return s;
  if (kvsift_status s = check_heads(p, heads, &span)) return s;
  const kvsift_observation &o = *observation;
  if (o.tokens == 0) return fail_in(p, KVSIFT_INVALID_ARGUMENT, "observation->tokens is 0");
  if (o.tokens > p->s.c.max_tokens) {
    return fail_in(p, KVSIFT_CAPACITY, "observation->tokens is ", o.tokens, ", max_tokens is ", p->s.c.max_tokens);
  }
  if (layer < p->s.c.dense_layers) return KVSIFT_OK;
  if (kvsift_status s = o.rows == nullptr ? check_block_form(p, o, span) : check_row_form(p, o, span)) return s;
  if (kvsift_status s = check_row_order(p, layer, "observation->tokens", o.tokens, span)) return s;
  for (std::uint32_t i = span.begin; i < span.end; ++i) {
    const HeadState head = head_of(p, layer, i);
    const bool prompt = head.unit->selected_for != o.tokens;
    const std::uint64_t first = std::uint64_t{i} * p->s.group;
    if (o.rows != nullptr) {
      observe_rows(head, o.rows + first * o.row_stride, o.row_stride, o.tokens, o.full != 0, prompt);
    } else {
      const auto own = [&](const float *rows) { return rows == nullptr ? nullptr : rows + first * o.block_stride; };
      observe_pooled(head, PooledRows{o.tokens, o.full != 0, prompt, own(o.block_max), own(o.block_mass),
                                      o.log_sum_exp + first, o.block_stride});
    }
  }
  return KVSIFT_OK;
}

// Every layer must have seen the keys of a step that ends.
static kvsift_status check_layers(const Policy *p, std::uint32_t tokens) {
  if ((p->s.needs & KVSIFT_NEEDS_KEYS) == 0) return KVSIFT_OK;
  for (std::uint32_t layer = 0; layer < p->s.sparse_layers; ++layer) {
    for (std::uint32_t head = 0; head < p->s.c.kv_heads; ++head) {
      const std::uint32_t seen = p->unit(layer, head)->keys_seen;
      if (seen == tokens) continue;
      return fail_in(p, KVSIFT_OUT_OF_ORDER, "tokens ends the step at ", tokens, ", KV head ", head, " of layer ",
                     layer + p->s.c.dense_layers, " has keys of ", seen);
    }
  }
  return KVSIFT_OK;
}

extern "C" kvsift_status kvsift_advance(kvsift_policy *policy, uint32_t tokens) {
  if (!is_policy(policy)) return KVSIFT_INVALID_ARGUMENT;
  Policy *p = policy_of(policy);
  if (tokens > p->s.c.max_tokens - p->tokens) {
    return fail_in(p, KVSIFT_CAPACITY, "tokens is ", tokens, ", the policy is at ", p->tokens, " of max_tokens ",
                   p->s.c.max_tokens);
  }
  if (tokens == 0) return KVSIFT_OK;
  if (kvsift_status s = check_layers(p, p->tokens + tokens)) return s;
  const bool decoding = p->selected_for.load(std::memory_order_relaxed) > p->tokens;
  if (decoding) {
    if (p->decode_steps == 0) p->first_prompt = p->tokens;
    p->decode_steps += tokens;
  } else {
    p->prompt_end = p->tokens + tokens;
  }
  p->tokens += tokens;
  return KVSIFT_OK;
}

extern "C" kvsift_status kvsift_predict_next(kvsift_policy *policy, uint32_t layer, const kvsift_query *heads) {
  if (!is_policy(policy)) return KVSIFT_INVALID_ARGUMENT;
  Policy *p = policy_of(policy);
  const Method &method = *method_of(p->s.c.method);
  HeadSpan span;
  if (method.predict == nullptr) {
    return fail_in(p, KVSIFT_UNSUPPORTED, "method ", method.name, " predicts nothing ahead of the query");
  }
  if (kvsift_status s = check_layer(p, layer)) return s;
  if (kvsift_status s = check_heads(p, heads, &span)) return s;
  for (std::uint32_t i = span.begin; layer >= p->s.c.dense_layers && i < span.end; ++i) {
    const HeadState head = head_of(p, layer, i);
    const std::uint32_t next = (head.unit->rows_seen > p->tokens ? head.unit->rows_seen : p->tokens) + 1;
    if (!attends_to_all(p->s, next)) method.predict(head);
  }
  return KVSIFT_OK;
}

// From scores to lists: budgets, sinks and local tokens, grouping, late additions.
#pragma once

#include "policy/policy.h"

namespace kvsift {

// What every head of one selection has in common.
struct Step {
  std::uint32_t tokens;
  bool everything;
  bool calibration;
};

// The step that `tokens` cache tokens make in a sparse layer.
Step step_at(const Policy &policy, std::uint32_t tokens);

// A layer that attends to everything.
void select_dense(Policy *policy, std::uint32_t layer, std::uint32_t kv_head, std::uint32_t tokens);

// Fills the lists of one KV head. `queries`: [group][dim16], padded with zeros; null where the method needs none.
void select_head(const HeadState &head, const Step &step, const float *queries);

// Newest tokens always kept within a budget of `budget`: at least the query's own.
constexpr std::uint32_t local_tokens_of(const Settings &s, std::uint32_t budget) {
  // StreamingLLM spends all of it on the newest tokens.
  const std::uint32_t room = budget - s.c.sink_tokens;
  if (s.c.method == KVSIFT_METHOD_STREAMING) return room;
  auto local = static_cast<std::uint32_t>(static_cast<double>(s.c.recent_share) * budget);
  if (local < s.c.local_tokens) local = s.c.local_tokens;
  if (local > room) local = room;
  return local > 0 ? local : 1;
}

// Blocks that compete: those not wholly among the sinks or the newest tokens of `blocks` scored ones.
struct Crop {
  std::uint32_t begin, end;
};
constexpr Crop crop_of(const Settings &s, std::uint32_t blocks, std::uint32_t local_tokens) {
  const std::uint32_t begin = s.c.sink_tokens / s.c.block_tokens;
  const std::uint32_t local = local_tokens / s.c.block_tokens;
  return Crop{begin, blocks > local ? blocks - local : 0};
}

// How the context of `tokens` tokens is shared out: the budget, the newest tokens, and how many of the blocks that
// compete are taken.
struct Ranking {
  std::uint32_t tokens, budget, local;
  Crop crop;
  std::uint32_t k;
};
constexpr Ranking rank_for(const Settings &s, std::uint32_t tokens, std::uint32_t scored) {
  Ranking r{};
  r.tokens = tokens;
  r.budget = budget_at(s.c, tokens);
  r.local = local_tokens_of(s, r.budget);
  r.crop = crop_of(s, scored, r.local);
  const std::uint32_t fixed = s.c.sink_tokens + r.local;
  r.k = r.budget > fixed ? (r.budget - fixed) / s.c.block_tokens : 0;
  return r;
}

}  // namespace kvsift

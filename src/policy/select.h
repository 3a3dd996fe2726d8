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

// Blocks that compete: those not wholly among the sinks or the newest tokens of `blocks` scored ones.
struct Crop {
  std::uint32_t begin, end;
};
Crop crop_of(const Settings &settings, std::uint32_t blocks, std::uint32_t local_tokens);

// Newest tokens always kept within a budget of `budget`: at least the query's own.
std::uint32_t local_tokens_of(const Settings &settings, std::uint32_t budget);

}  // namespace kvsift

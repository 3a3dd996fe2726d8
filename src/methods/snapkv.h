// What SnapKV and PyramidKV share: votes of the prompt's last queries, and the choice they lead to.
#pragma once

#include "methods/method.h"

namespace kvsift {
namespace snapkv {

kvsift_status check(const kvsift_policy_config &c, kvsift_error *error);
std::uint32_t prefill_rows(const Settings &settings);
void layout(UnitLayout *layout, const Settings &settings);
void begin_chunk(const HeadState &head);
void observe(const HeadState &head, const Row &row);

// PyramidKV's budget of a layer. All divisions are the published code's integer ones.
constexpr std::uint32_t pyramid_budget(const kvsift_policy_config &c, std::uint32_t layer, std::uint32_t prompt) {
  const std::uint32_t budget = budget_at(c, prompt);
  const std::uint32_t share = budget - c.window;
  if (prompt < 2 * share || c.layers == 1) return budget;
  std::uint32_t least = share / c.pyramid_beta;
  std::uint32_t most = 2 * share - least;
  if (most >= prompt - c.window) {
    most = prompt - c.window;
    least = 2 * share - most;
  }
  return most - layer * ((most - least) / (c.layers - 1)) + c.window;
}

// The best blocks between sinks and window, so that `budget` tokens are kept in all.
void keep_best(const HeadState &head, std::uint32_t list, std::uint32_t budget, Chosen *chosen);

}  // namespace snapkv
}  // namespace kvsift

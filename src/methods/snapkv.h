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

// The best blocks between sinks and window, so that `budget` tokens are kept in all.
void keep_best(const HeadState &head, std::uint32_t list, std::uint32_t budget, Chosen *chosen);

}  // namespace snapkv
}  // namespace kvsift

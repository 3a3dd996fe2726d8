// Scores of pages from the statistics of their keys, for page statistics and Quest.
#pragma once

#include "cuda/core/launcher.h"
#include "cuda/policy/image.h"

namespace kvsift {

constexpr std::uint32_t kScoreThreads = 128;
constexpr std::uint32_t kPagesOfBlock = kScoreThreads / 2;  // at a time

// Leaves scores[query head][page] in the head's scratch, and with the moments tail its logits in the spare rows.
struct PageScoreArgs {
  Call call;
  kvsift_view query;
};

kvsift_status score_quest(const Launcher &to, const Call &call, std::uint32_t heads, const kvsift_query &query);
kvsift_status score_page_stats(const Launcher &to, const Call &call, std::uint32_t heads, const kvsift_query &query);
// The tail's logits in the heads' spare rows.
kvsift_status leave_tail_logits(const Launcher &to, const Call &call, std::uint32_t heads, const kvsift_view &query);
// Scores by page statistics in the heads' spare rows, for verify_blocks.
kvsift_status leave_late_scores(const Launcher &to, const Call &call, std::uint32_t heads, const kvsift_view &query);
std::uint32_t bytes_of_bounds(const Settings &settings);
std::uint32_t bytes_of_moments(const Settings &settings);

}  // namespace kvsift

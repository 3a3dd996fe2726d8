// Scores of pages from the mean and deviation of their keys.
#pragma once

#include "methods/method.h"

namespace kvsift {

// Refuses a block size other than the page size.
kvsift_status check_whole_pages(const kvsift_policy_config &config, kvsift_error *error);

// scores[query head][page], logarithms of shares up to a constant.
void page_scores(const HeadState &head, const QueryRows &query, std::uint32_t pages, float *scores,
                 std::uint64_t stride);

}  // namespace kvsift

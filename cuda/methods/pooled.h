// Pooled attention rows on their way into a method's state, as struct Row of methods/method.h.
#pragma once

#include "cuda/policy/image.h"

namespace kvsift {

// Rows of consecutive queries, oldest first, reduced to the lists of each KV head. The call's tokens are the last one's.
struct DeviceRows {
  const float *peak, *mass;  // [rows][KV heads of the call][lists][blocks]; mass is null where not asked for
  std::uint64_t row_stride, head_stride, list_stride;
  std::uint32_t rows;
  std::uint32_t prompt;      // 0: a decode step's
  std::uint32_t first;       // of a prompt chunk's: 0; 1; kFirstUnlessSeen
};
// Where the heads have seen no rows since the policy was last advanced.
constexpr std::uint32_t kFirstUnlessSeen = 2;

}  // namespace kvsift

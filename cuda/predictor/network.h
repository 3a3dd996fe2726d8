// The predictor's network: s where a plan says so, and its means over the window.
#pragma once

#include "cuda/policy/image.h"
#include "cuda/predictor/histories.h"

namespace kvsift {

constexpr std::uint32_t kMeanThreads = 128;  // columns of a block

// In float32 and int8 the bits are those of the twins on the CPU; in bf16 sums have another order.
struct PredictorConvolveArgs {
  Histories histories;
};

// scores of the plan's columns: the crop's from s, the others' what the newest row has there.
struct PredictorMeanArgs {
  Histories histories;
  // Not null: what a selection ranks goes there, [KV head][list][block], of the `blocks` blocks those that the history
  // knows; how many to scored[KV head].
  float *out;
  std::uint64_t head_stride, list_stride;
  std::uint32_t *scored;
  Call call;
};

}  // namespace kvsift

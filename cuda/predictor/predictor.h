// Launches of the predictor's kernels.
#pragma once

#include "cuda/core/device.h"
#include "cuda/predictor/history.h"
#include "cuda/predictor/network.h"
#include "cuda/predictor/plan.h"

namespace kvsift {

// Where a launch goes.
struct Launcher {
  const Device &device;
  void *stream;
  kvsift_error *error;
};

kvsift_status append_history(const Launcher &to, const HistoryAppendArgs &args);
kvsift_status truncate_history(const Launcher &to, const HistoryTruncateArgs &args);
// Scores for the next token of every list that does not have them.
kvsift_status predict(const Launcher &to, const Histories &histories);

}  // namespace kvsift

// Launches of the predictor's kernels.
#pragma once

#include "cuda/core/launcher.h"
#include "cuda/predictor/history.h"
#include "cuda/predictor/network.h"
#include "cuda/predictor/plan.h"

namespace kvsift {

kvsift_status append_history(const Launcher &to, const HistoryAppendArgs &args);
kvsift_status truncate_history(const Launcher &to, const HistoryTruncateArgs &args);
// Scores for the next token of every list that does not have them, where they are wanted.
// Ranks go to `ranks.out`, if that is not null; its histories are the plan's.
kvsift_status predict(const Launcher &to, const PredictorPlanArgs &plan, const PredictorMeanArgs &ranks);

}  // namespace kvsift

// What a prediction has to compute.
#pragma once

#include "cuda/predictor/histories.h"

namespace kvsift {

// Plans the prediction for the next token of each list, and marks it as done: what follows in the stream does it.
struct PredictorPlanArgs {
  Histories histories;
};

}  // namespace kvsift

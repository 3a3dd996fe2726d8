// The predictor's network: s where a plan says so, and its means over the window.
#pragma once

#include "cuda/predictor/histories.h"

namespace kvsift {

// Both forms give the bits of their twins on the CPU.
struct PredictorConvolveArgs {
  Histories histories;
};

// scores of the plan's columns: the crop's from s, the others' what the newest row has there.
struct PredictorMeanArgs {
  Histories histories;
};

}  // namespace kvsift

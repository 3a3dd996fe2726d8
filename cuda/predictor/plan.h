// What a prediction has to compute.
#pragma once

#include "cuda/policy/image.h"
#include "cuda/predictor/histories.h"

namespace kvsift {

enum PlanFor : std::uint32_t {
  kPlanAlways,    // the call is not looked at
  kPlanForCall,   // where the call's step does not attend to everything
  kPlanForNext    // where the step after the last row's does not
};

// Plans the prediction for the next token of each list, and marks it as done: what follows in the stream does it.
struct PredictorPlanArgs {
  Histories histories;
  Call call;
  PlanFor plan_for;
};

}  // namespace kvsift

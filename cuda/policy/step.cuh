// What a decode step is, found on the device.
#pragma once

#include "cuda/policy/image.cuh"
#include "policy/select.h"

namespace kvsift {
namespace {

// As step_at of policy/select.h, for methods that rank. `learns`: the method wants full rows at times.
__device__ inline Step step_of(const Call &call, std::uint32_t tokens, bool learns) {
  const kvsift_policy_config &c = call.image.s.c;
  Step step{tokens, true, false};
  if (call.layer < c.dense_layers) return step;
  step.everything = attends_to_all(call.image.s, tokens);
  if (!learns || c.calibration_period == 0) return step;
  const Progress *progress = progress_of(call.image);
  const std::uint64_t decode_step = std::uint64_t{progress->decode_steps} + tokens - progress->tokens;
  step.calibration = decode_step % c.calibration_period == 0;
  return step;
}

}  // namespace
}  // namespace kvsift

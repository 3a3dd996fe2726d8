// AttentionPredictor on the device: its histories in the policy's units, and what the device needs besides.
#pragma once

#include "core/arena.h"
#include "cuda/methods/pooled.h"
#include "cuda/predictor/predictor.h"

namespace kvsift {

// In the room of the device alone, from the method's place on.
struct PredictorRoom {
  Offset<kvsift_predictor> predictor;  // weights, copied there at create
  Offset<PredictionPlan> plans;        // [KV heads][lists]
  Offset<std::uint32_t> arrivals;      // [KV heads][lists], zero
  Offset<std::uint32_t> scored;        // [KV heads]: leading blocks that have a score
  std::uint64_t bytes;
};
PredictorRoom predictor_room(const Settings &settings);

// The histories of the call's `heads` KV heads.
Histories histories_of_call(const Call &call, std::uint32_t heads);

struct PredictorResetArgs {
  Histories histories;
  PredictorState state;  // of a history without rows
};

kvsift_status reset_predictor(const Launcher &to, const Call &call, std::uint32_t heads);
kvsift_status observe_predictor(const Launcher &to, const Call &call, std::uint32_t heads, const DeviceRows &rows);
kvsift_status predict_next(const Launcher &to, const Call &call, std::uint32_t heads);
// Leaves the scores in the heads' scratch.
kvsift_status score_predictor(const Launcher &to, const Call &call, std::uint32_t heads);
kvsift_status truncate_predictor(const Launcher &to, const Call &call, std::uint32_t heads, std::uint32_t tokens);

}  // namespace kvsift

// What AttentionPredictor keeps of each KV head; the CUDA backend works on the same bytes.
#pragma once

#include "methods/method.h"
#include "predictor/network.h"

namespace kvsift {
namespace attention_predictor {

// Fields of the method's state: per list a PredictorState, the ring, s, its marks and the scores (predictor/network.h);
// per KV head Marks and the cache length of each row of the ring.
enum { kStates, kMarks, kLengths, kRing, kKept, kFilled, kScores };

constexpr std::uint64_t kNever = ~0ull;

// What the histories of a KV head have in common.
struct Marks {
  std::uint64_t prompt_end;  // rows when the prompt was through
  std::uint64_t scored;      // rows when the scores were computed; kNever: they are of no use
  std::uint32_t columns;     // of the scores
};

PredictorShape shape_of(const Settings &settings);

}  // namespace attention_predictor
}  // namespace kvsift

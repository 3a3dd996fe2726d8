// One head's tokens compressed once.
#pragma once

#include "balance/halver.h"

namespace kvsift {

struct CompressPlaces {
  Offset<std::uint32_t> index;  // [tokens]
  Offset<float> weight;         // [tokens], along with index
  Offset<float> weight_of;      // [tokens], by token; zero: dropped
  Offset<std::uint64_t> order;  // [tokens], permutation
  Offset<std::int16_t> steps;   // [tokens], graded
  HalverPlaces halver;
};
CompressPlaces lay_out_compress(Layout *layout, const BalancePlan &plan, std::uint32_t tokens);

struct CompressJob {
  const BalancePlan &plan;
  const Kernels &kernels;
  const CompressPlaces &places;
  void *scratch;
  BalanceSource source;
  kvsift_range range;
  BalanceCounters *counters;
  std::uint32_t guard_most;  // tokens that the guard may keep
};

// Fills places.weight_of; returns how many tokens stay.
std::uint32_t compress(const CompressJob &job);

// Graded: halves the tokens whose weight_of is zero, each as often as its importance allows;
// returns how many stay.
std::uint32_t compress_graded(const CompressJob &job);

// index[0, count), weights 1, halved `halvings` times.
std::uint32_t halve_times(const CompressJob &job, std::uint32_t count, std::uint32_t halvings,
                          const float *uniforms);

// Gives index[0, count) its weights, scaled to sum to `total` where the plan says so.
void settle_weights(const CompressJob &job, std::uint32_t count, std::uint32_t total);

// The size of a group when `tokens` tokens are compressed.
inline std::uint32_t group_of(const BalancePlan &plan, std::uint32_t tokens) {
  return plan.c.group_tokens == 0 ? tokens : plan.c.group_tokens;
}

}  // namespace kvsift

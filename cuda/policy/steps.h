// What moves a policy from token to token.
#pragma once

#include "cuda/policy/image.h"

namespace kvsift {

struct AdvanceArgs {
  Image image;
  std::uint32_t tokens;
};

// Of the call's heads: step state of a cache of one token less is remembered.
struct RememberArgs {
  Call call;
};

// A step's attention, as struct kvsift_observation has it: [query heads], device pointers.
struct ObserveArgs {
  Call call;
  const float *block_max, *block_mass, *log_sum_exp;
  std::uint64_t block_stride;
  const float *rows;         // null: block form
  std::uint64_t row_stride;
  std::uint32_t full;        // kFullFromStep: what the selection's record says
  std::uint32_t has_mass;
};
constexpr std::uint32_t kFullFromStep = 2;

// Back to a cache of `to` tokens.
struct TruncateArgs {
  Call call;
  std::uint32_t to;
  std::uint32_t evicts;      // the method drops blocks when it chooses
};

}  // namespace kvsift

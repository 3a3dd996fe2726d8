// Storage types of 16-bit elements, so that loads and stores overload on them.
#pragma once

#include <cstdint>

namespace kvsift {

struct F16 {
  std::uint16_t bits;
};
struct BF16 {
  std::uint16_t bits;
};

constexpr std::uint32_t kLanes = 16;

// Squares of int8 numbers keep their upper bits where they meet other int8 numbers.
constexpr int kSquareBits = 7, kSquareUnit = 1 << kSquareBits;

// What the largest weight of int8 rows becomes.
constexpr float kLargestWeight = 32767.0f;

// Static, so that no copy compiled for wide registers can reach other code.
static constexpr std::uint32_t padded_dim(std::uint32_t dim) {
  return (dim + kLanes - 1) / kLanes * kLanes;
}

}  // namespace kvsift

// The k best of n scores by radix selection, ties to the lower index, in ascending order: what policy/top_blocks.h gives,
// less those of minus infinity. Worked on by one block.
#pragma once

#include "cuda/core/block.cuh"

namespace kvsift {
namespace {

constexpr unsigned kDigitBits = 11;
constexpr std::uint32_t kDigits = 1u << kDigitBits;

__device__ inline std::uint32_t key_of(float score) {
  const std::uint32_t bits = __float_as_uint(score + 0.0f);  // -0 counts as 0
  return bits ^ ((bits >> 31) != 0 ? 0xffffffffu : 0x80000000u);
}

// Counts a digit of each thread. Scores are alike in their first digits: what most of a warp has is added at once.
__device__ inline void count_digit(std::uint32_t digit, bool counts, std::uint32_t *histogram) {
  const unsigned who = __ballot_sync(kAllLanes, counts);
  if (who == 0) return;
  const int leader = __ffs(static_cast<int>(who)) - 1;
  const std::uint32_t common = __shfl_sync(kAllLanes, digit, leader);
  const unsigned alike = __ballot_sync(kAllLanes, counts && digit == common);
  if (static_cast<int>(threadIdx.x % kWarpThreads) == leader) {
    atomicAdd(&histogram[common], static_cast<std::uint32_t>(__popc(alike)));
  } else if (counts && digit != common) {
    atomicAdd(&histogram[digit], 1u);
  }
}

// The digit at which the `rank` largest are reached, counted from the largest; *rank becomes the rank among those that
// have it.
__device__ inline std::uint32_t digit_of_rank(const std::uint32_t *histogram, std::uint32_t *rank) {
  __shared__ std::uint32_t found[2];
  const std::uint32_t each = kDigits / blockDim.x;
  const std::uint32_t first = kDigits - 1 - threadIdx.x * each;
  std::uint32_t own = 0, total;
  for (std::uint32_t i = 0; i < each; ++i) own += histogram[first - i];
  std::uint32_t before = sum_before(own, &total);
  if (before < *rank && *rank <= before + own) {
    std::uint32_t digit = first;
    while (before + histogram[digit] < *rank) before += histogram[digit--];
    found[0] = digit;
    found[1] = *rank - before;
  }
  __syncthreads();
  const std::uint32_t digit = found[0];
  *rank = found[1];
  __syncthreads();
  return digit;
}

// The key of the given rank, 1 .. count, and its rank among equals.
__device__ inline std::uint32_t key_of_rank(const float *scores, std::uint32_t count, std::uint32_t *rank) {
  __shared__ std::uint32_t histogram[kDigits];
  std::uint32_t prefix = 0;
  unsigned known = 0;
  while (known < 32) {
    const unsigned bits = 32 - known < kDigitBits ? 32 - known : kDigitBits, shift = 32 - known - bits;
    for (std::uint32_t i = threadIdx.x; i < kDigits; i += blockDim.x) histogram[i] = 0;
    __syncthreads();
    for (std::uint32_t first = 0; first < count; first += blockDim.x) {
      const std::uint32_t i = first + threadIdx.x;
      const std::uint32_t key = i < count ? key_of(scores[i]) : 0;
      const bool counts = i < count && (known == 0 || key >> (32 - known) == prefix);
      count_digit(key >> shift & ((1u << bits) - 1), counts, histogram);
    }
    __syncthreads();
    prefix = prefix << bits | digit_of_rank(histogram, rank);
    known += bits;
  }
  return prefix;
}

// Writes begin + i for the chosen i of scores[begin ...) to `out`; returns how many. All threads must call it.
__device__ inline std::uint32_t top_blocks(const float *scores, std::uint32_t begin, std::uint32_t count, std::uint32_t k,
                                           std::uint32_t *out) {
  if (k == 0 || count == 0) return 0;
  scores += begin;
  std::uint32_t rank = 0, threshold = 0;
  const bool all = k >= count;
  if (!all) {
    rank = k;
    threshold = key_of_rank(scores, count, &rank);
  }
  std::uint32_t taken = 0, equals = 0;
  for (std::uint32_t first = 0; first < count; first += blockDim.x) {
    const std::uint32_t i = first + threadIdx.x;
    const bool real = i < count && scores[i] > -infinity();
    const std::uint32_t key = real ? key_of(scores[i]) : 0;
    const bool above = real && (all || key > threshold), equal = real && !all && key == threshold;
    // Both prefix sums in one: a block has at most 1024 of either.
    std::uint32_t total;
    const std::uint32_t before = sum_before((above ? 1u : 0u) << 16 | (equal ? 1u : 0u), &total);
    const std::uint32_t equals_before = equals + (before & 0xffffu);
    const std::uint32_t room = equals_before < rank ? equals_before : rank;
    if (above || (equal && equals_before < rank)) out[taken + (before >> 16) + room] = begin + i;
    taken += total >> 16;
    equals += total & 0xffffu;
  }
  __syncthreads();
  return taken + (equals < rank ? equals : rank);
}

}  // namespace
}  // namespace kvsift

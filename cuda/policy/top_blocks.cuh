// The k best of n scores by radix selection, ties to the lower index, in ascending order: what policy/top_blocks.h gives,
// less those of minus infinity. Worked on by one block.
#pragma once

#include "cuda/core/block.cuh"

namespace kvsift {
namespace {

constexpr unsigned kDigitBits = 8;
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

// What the lanes before this one hold.
__device__ inline std::uint32_t sum_of_lanes_before(std::uint32_t x) {
  const std::uint32_t lane = threadIdx.x % kWarpThreads;
  std::uint32_t through = x;
#pragma unroll
  for (unsigned step = 1; step < kWarpThreads; step *= 2) {
    const std::uint32_t other = __shfl_up_sync(kAllLanes, through, step);
    if (lane >= step) through += other;
  }
  return through - x;
}

struct DigitOfRank {
  std::uint32_t digit, rank, count;  // rank among the `count` that have the digit
};

// The digit at which the `rank` largest are reached, counted from the largest. Worked on by one warp.
__device__ inline void find_digit(const std::uint32_t *histogram, std::uint32_t rank, DigitOfRank *found) {
  constexpr std::uint32_t kEach = kDigits / kWarpThreads;
  const std::uint32_t first = kDigits - 1 - threadIdx.x % kWarpThreads * kEach;
  std::uint32_t count[kEach], own = 0;
#pragma unroll
  for (std::uint32_t i = 0; i < kEach; ++i) own += count[i] = histogram[first - i];
  std::uint32_t before = sum_of_lanes_before(own);
  if (before >= rank || rank > before + own) return;
#pragma unroll
  for (std::uint32_t i = 0; i < kEach; ++i) {
    if (before < rank && rank <= before + count[i]) *found = DigitOfRank{first - i, rank - before, count[i]};
    before += count[i];
  }
}

// What is taken: scores whose leading bits are above those of the threshold, and the first `equals` of those that have them.
struct Threshold {
  std::uint32_t key, equals;
  unsigned shift;  // bits that do not matter
  bool all;

  __device__ bool above(float score) const { return score > -infinity() && (all || key_of(score) >> shift > key); }
  __device__ bool at(float score) const { return score > -infinity() && !all && key_of(score) >> shift == key; }
};

// Of the `rank` largest of count scores, 1 .. count. Ends as soon as all that have the leading bits are taken.
__device__ inline Threshold threshold_of(const float *scores, std::uint32_t count, std::uint32_t rank) {
  __shared__ std::uint32_t histogram[2][kDigits];
  __shared__ DigitOfRank found;
  Threshold t{0, rank, 32, false};
  for (std::uint32_t i = threadIdx.x; i < kDigits; i += blockDim.x) histogram[0][i] = 0;
  __syncthreads();
  for (std::uint32_t pass = 0; t.shift > 0; ++pass) {
    const unsigned shift = t.shift -= kDigitBits;
    for (std::uint32_t i = threadIdx.x; i < kDigits; i += blockDim.x) histogram[(pass + 1) % 2][i] = 0;
    const std::uint32_t turns = (count + blockDim.x - 1) / blockDim.x;
#pragma unroll 2
    for (std::uint32_t n = 0; n < turns; ++n) {
      const std::uint32_t i = n * blockDim.x + threadIdx.x;
      const std::uint32_t key = i < count ? key_of(scores[i]) : 0;
      const bool counts = i < count && (pass == 0 || key >> shift >> kDigitBits == t.key);
      count_digit(key >> shift & (kDigits - 1), counts, histogram[pass % 2]);
    }
    __syncthreads();
    if (threadIdx.x < kWarpThreads) find_digit(histogram[pass % 2], t.equals, &found);
    __syncthreads();
    t.key = t.key << kDigitBits | found.digit;
    t.equals = found.rank;
    if (found.count == found.rank) break;
  }
  return t;
}

// Each warp takes neighbouring scores, and counts them before it knows where they go.
__device__ inline std::uint32_t take_blocks(const float *scores, std::uint32_t begin, std::uint32_t count, const Threshold &t,
                                            std::uint32_t *out, std::uint32_t *copy) {
  __shared__ std::uint32_t above_of[kWarpThreads], equal_of[kWarpThreads];
  const std::uint32_t warps = blockDim.x / kWarpThreads, warp = threadIdx.x / kWarpThreads, lane = threadIdx.x % kWarpThreads;
  const std::uint32_t each = (count + blockDim.x - 1) / blockDim.x * kWarpThreads;
  const std::uint32_t from = warp * each < count ? warp * each : count, to = count - from < each ? count : from + each;
  const std::uint32_t turns = (to - from + kWarpThreads - 1) / kWarpThreads;
  std::uint32_t above = 0, equal = 0;
#pragma unroll 4
  for (std::uint32_t n = 0; n < turns; ++n) {
    const std::uint32_t first = from + n * kWarpThreads;
    const float score = first + lane < to ? scores[first + lane] : -infinity();
    above += static_cast<std::uint32_t>(__popc(__ballot_sync(kAllLanes, t.above(score))));
    equal += static_cast<std::uint32_t>(__popc(__ballot_sync(kAllLanes, t.at(score))));
  }
  if (lane == 0) above_of[warp] = above, equal_of[warp] = equal;
  __syncthreads();
  const std::uint32_t above_here = lane < warps ? above_of[lane] : 0, equal_here = lane < warps ? equal_of[lane] : 0;
  const std::uint32_t above_before = sum_of_lanes_before(above_here), equal_before = sum_of_lanes_before(equal_here);
  const std::uint32_t last = kWarpThreads - 1;
  const std::uint32_t all_above = __shfl_sync(kAllLanes, above_before + above_here, last);
  const std::uint32_t all_equal = __shfl_sync(kAllLanes, equal_before + equal_here, last);
  std::uint32_t taken = __shfl_sync(kAllLanes, above_before, warp), equals = __shfl_sync(kAllLanes, equal_before, warp);
  const unsigned lower = (1u << lane) - 1;
#pragma unroll 2
  for (std::uint32_t n = 0; n < turns; ++n) {
    const std::uint32_t first = from + n * kWarpThreads;
    const float score = first + lane < to ? scores[first + lane] : -infinity();
    const bool is_above = t.above(score), is_equal = t.at(score);
    const unsigned aboves = __ballot_sync(kAllLanes, is_above), at = __ballot_sync(kAllLanes, is_equal);
    const std::uint32_t equals_here = equals + static_cast<std::uint32_t>(__popc(at & lower));
    if (is_above || (is_equal && equals_here < t.equals)) {
      const std::uint32_t before = equals_here < t.equals ? equals_here : t.equals;
      const std::uint32_t place = taken + static_cast<std::uint32_t>(__popc(aboves & lower)) + before;
      out[place] = begin + first + lane;
      if (copy != nullptr) copy[place] = begin + first + lane;
    }
    taken += static_cast<std::uint32_t>(__popc(aboves));
    equals += static_cast<std::uint32_t>(__popc(at));
  }
  __syncthreads();
  return all_above + (all_equal < t.equals ? all_equal : t.equals);
}

// Writes begin + i for the chosen i of scores[begin ...) to `out`, and to `copy` where it is not null; returns how many. All
// threads must call it.
__device__ inline std::uint32_t top_blocks(const float *scores, std::uint32_t begin, std::uint32_t count, std::uint32_t k,
                                           std::uint32_t *out, std::uint32_t *copy) {
  if (k == 0 || count == 0) return 0;
  const Threshold t = k >= count ? Threshold{0, 0, 0, true} : threshold_of(scores + begin, count, k);
  return take_blocks(scores + begin, begin, count, t, out, copy);
}

}  // namespace
}  // namespace kvsift

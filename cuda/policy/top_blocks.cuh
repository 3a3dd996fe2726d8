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

struct alignas(16) DigitOfRank {  // read whole: nothing else may lie in its 16 bytes
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
#pragma unroll
  for (std::uint32_t i = 0; i < kEach; ++i) {
    if (before < rank && rank <= before + count[i]) *found = DigitOfRank{first - i, rank - before, count[i]};
    before += count[i];
  }
}

// The scores that compete, of which thread t looks at places 4 t .. 4 t + 3 of each stretch of 4 blockDim.x.
struct Contest {
  const float *scores;
  std::uint32_t count;

  __device__ std::uint32_t stretches() const { return (count + 4 * blockDim.x - 1) / (4 * blockDim.x); }
  __device__ std::uint32_t place(std::uint32_t stretch) const { return 4 * (stretch * blockDim.x + threadIdx.x); }
  // Keys of the thread's four places; those beyond the end, NaN and minus infinity have none, which is 0.
  __device__ void keys_at(std::uint32_t place, std::uint32_t (&key)[4]) const {
    float score[4];
#pragma unroll
    for (std::uint32_t i = 0; i < 4; ++i) score[i] = place + i < count ? scores[place + i] : -infinity();
#pragma unroll
    for (std::uint32_t i = 0; i < 4; ++i) key[i] = score[i] > -infinity() ? key_of(score[i]) : 0;
  }
};

// What is taken: keys whose leading bits are above those of the threshold, and the first `equals` of those that have them.
struct Threshold {
  std::uint32_t key, equals;
  unsigned shift;  // bits that do not matter
  bool all;

  __device__ bool above(std::uint32_t k) const { return k != 0 && (all || k >> shift > key); }
  __device__ bool at(std::uint32_t k) const { return k != 0 && !all && k >> shift == key; }
};

// Of the `rank` largest of more. Ends as soon as all that have the leading bits are taken. `held`: the keys of the only stretch.
__device__ inline Threshold threshold_of(const Contest &contest, std::uint32_t rank, const std::uint32_t (&held)[4]) {
  __shared__ std::uint32_t histogram[2][kDigits];
  __shared__ DigitOfRank found;
  Threshold t{0, rank, 32, false};
  const std::uint32_t stretches = contest.stretches();
  for (std::uint32_t i = threadIdx.x; i < kDigits; i += blockDim.x) histogram[0][i] = 0;
  __syncthreads();
  for (std::uint32_t pass = 0; t.shift > 0; ++pass) {
    std::uint32_t *counts = histogram[pass % 2];
    const unsigned shift = t.shift -= kDigitBits;
    for (std::uint32_t i = threadIdx.x; i < kDigits; i += blockDim.x) histogram[(pass + 1) % 2][i] = 0;
    for (std::uint32_t stretch = 0; stretch < stretches; ++stretch) {
      std::uint32_t key[4] = {held[0], held[1], held[2], held[3]};
      if (stretches > 1) contest.keys_at(contest.place(stretch), key);
#pragma unroll
      for (std::uint32_t i = 0; i < 4; ++i) {
        const bool counted = contest.place(stretch) + i < contest.count && (pass == 0 || key[i] >> shift >> kDigitBits == t.key);
        if (counted) atomicAdd(&counts[key[i] >> shift & (kDigits - 1)], 1u);
      }
    }
    __syncthreads();
    if (threadIdx.x < kWarpThreads) find_digit(counts, t.equals, &found);
    __syncthreads();
    t.key = t.key << kDigitBits | found.digit;
    t.equals = found.rank;
    if (found.count == found.rank) break;
  }
  return t;
}

// What all threads before this one, and all together, hold of two counts of 16 bits.
__device__ inline std::uint32_t pair_before(std::uint32_t pair, std::uint32_t *total) {
  __shared__ std::uint32_t of_warp[kWarpThreads];
  const std::uint32_t warps = blockDim.x / kWarpThreads, warp = threadIdx.x / kWarpThreads, lane = threadIdx.x % kWarpThreads;
  const std::uint32_t before = sum_of_lanes_before(pair);
  if (lane == kWarpThreads - 1) of_warp[warp] = before + pair;
  __syncthreads();
  const std::uint32_t own = lane < warps ? of_warp[lane] : 0, through = sum_of_lanes_before(own);
  *total = __shfl_sync(kAllLanes, through + own, kWarpThreads - 1);
  const std::uint32_t of_warps = __shfl_sync(kAllLanes, through, warp);
  __syncthreads();
  return of_warps + before;
}

__device__ inline std::uint32_t take_blocks(const Contest &contest, std::uint32_t begin, const Threshold &t,
                                            const std::uint32_t (&held)[4], std::uint32_t *out, std::uint32_t *copy) {
  const std::uint32_t stretches = contest.stretches();
  std::uint32_t taken = 0, equals = 0;
  for (std::uint32_t stretch = 0; stretch < stretches; ++stretch) {
    std::uint32_t key[4] = {held[0], held[1], held[2], held[3]}, pair = 0, total;
    if (stretches > 1) contest.keys_at(contest.place(stretch), key);
#pragma unroll
    for (std::uint32_t i = 0; i < 4; ++i) pair += (t.above(key[i]) ? 1u << 16 : 0u) + (t.at(key[i]) ? 1u : 0u);
    const std::uint32_t before = pair_before(pair, &total);
    std::uint32_t above_here = taken + (before >> 16), equals_here = equals + (before & 0xffffu);
#pragma unroll
    for (std::uint32_t i = 0; i < 4; ++i) {
      const bool above = t.above(key[i]), at = t.at(key[i]);
      if (above || (at && equals_here < t.equals)) {
        const std::uint32_t to = above_here + (equals_here < t.equals ? equals_here : t.equals);
        out[to] = begin + contest.place(stretch) + i;
        if (copy != nullptr) copy[to] = begin + contest.place(stretch) + i;
      }
      above_here += above ? 1 : 0;
      equals_here += at ? 1 : 0;
    }
    taken += total >> 16;
    equals += total & 0xffffu;
  }
  __syncthreads();
  return taken + (equals < t.equals ? equals : t.equals);
}

// Writes begin + i for the chosen i of scores[begin ...) to `out`, and to `copy` where it is not null; returns how many. All
// threads must call it.
__device__ inline std::uint32_t top_blocks(const float *scores, std::uint32_t begin, std::uint32_t count, std::uint32_t k,
                                           std::uint32_t *out, std::uint32_t *copy = nullptr) {
  if (k == 0 || count == 0) return 0;
  const Contest contest{scores + begin, count};
  std::uint32_t held[4];
  contest.keys_at(contest.place(0), held);
  const Threshold t = k >= count ? Threshold{0, 0, 0, true} : threshold_of(contest, k, held);
  return take_blocks(contest, begin, t, held, out, copy);
}

}  // namespace
}  // namespace kvsift

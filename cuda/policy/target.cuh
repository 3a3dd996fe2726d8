// Budget by target: as few blocks as hold an estimated share of the attention mass, as policy/target.h has it. Worked on by
// one block.
#pragma once

#include "cuda/policy/top_blocks.cuh"
#include "methods/method.h"
#include "policy/select.h"

namespace kvsift {
namespace {

constexpr std::uint32_t kMassChunk = 64, kMassLanes = 16, kMostThreads = 1024;

// What the scores of a list are, and what they are relative to.
struct Estimate {
  const float *scores;
  ScoreKind kind;
  float max;  // of logarithms

  __device__ float mass(std::uint32_t i) const {
    if (kind == ScoreKind::kLog) return exp1(scores[i] - max);
    return scores[i] > 0.0f ? scores[i] : 0.0f;
  }
};

__device__ inline float max_of(const float *scores, std::uint32_t count) {
  float max = -infinity();
  for (std::uint32_t i = threadIdx.x; i < count; i += blockDim.x) max = scores[i] > max ? scores[i] : max;
  return block_max(max);
}

// Mass of blocks [begin, end): chunks by the tree, sixteen threads each; one thread adds them up and knows the sum.
__device__ inline double mass_of(const Estimate &estimate, std::uint32_t begin, std::uint32_t end) {
  __shared__ float sums[kMostThreads / kMassLanes];
  const std::uint32_t lane = threadIdx.x % kMassLanes, own = threadIdx.x / kMassLanes;
  const std::uint32_t chunks = blocks_of(end - begin, kMassChunk), at_once = blockDim.x / kMassLanes;
  double mass = 0;
  for (std::uint32_t first = 0; first < chunks; first += at_once) {
    const std::uint32_t from = begin + (first + own) * kMassChunk;
    float sum = 0.0f;
    for (std::uint32_t i = lane; i < kMassChunk && from + i < end; i += kMassLanes) sum = sum + estimate.mass(from + i);
#pragma unroll
    for (unsigned step = kMassLanes / 2; step > 0; step /= 2) sum = sum + __shfl_xor_sync(kAllLanes, sum, step);
    if (lane == 0) sums[own] = sum;
    __syncthreads();
    for (std::uint32_t c = 0; threadIdx.x == 0 && c < at_once && first + c < chunks; ++c) mass += static_cast<double>(sums[c]);
    __syncthreads();
  }
  return mass;
}

// chosen[0 .. count), ascending, by falling scores.
__device__ inline void sort_by_score(const float *scores, const std::uint32_t *chosen, std::uint32_t count, std::uint32_t *sorted) {
  __shared__ std::uint32_t keys[kMostThreads];
  for (std::uint32_t own = threadIdx.x; own - threadIdx.x < count; own += blockDim.x) {
    const std::uint32_t key = own < count ? key_of(scores[chosen[own]]) : 0;
    std::uint32_t rank = 0;
    for (std::uint32_t first = 0; first < count; first += blockDim.x) {
      const std::uint32_t here = count - first < blockDim.x ? count - first : blockDim.x;
      if (threadIdx.x < here) keys[threadIdx.x] = key_of(scores[chosen[first + threadIdx.x]]);
      __syncthreads();
      for (std::uint32_t i = 0; i < here; ++i) rank += keys[i] > key || (keys[i] == key && first + i < own);
      __syncthreads();
    }
    if (own < count) sorted[rank] = chosen[own];
  }
  __syncthreads();
}

// How many of the sorted blocks it takes to come from `mass` to `wanted`; UINT32_MAX: all are not enough. One thread's
// masses count.
__device__ inline std::uint32_t count_to(const Estimate &estimate, const std::uint32_t *sorted, std::uint32_t count, double mass,
                                         double wanted) {
  __shared__ float masses[kMostThreads];
  __shared__ std::uint32_t taken;
  if (threadIdx.x == 0) taken = 0;
  for (std::uint32_t first = 0; first < count; first += blockDim.x) {
    const std::uint32_t here = count - first < blockDim.x ? count - first : blockDim.x;
    if (threadIdx.x < here) masses[threadIdx.x] = estimate.mass(sorted[first + threadIdx.x]);
    __syncthreads();
    if (threadIdx.x == 0) {
      std::uint32_t i = 0;
      for (; i < here && mass < wanted; ++i) mass += static_cast<double>(masses[i]);
      taken += i;
    }
    __syncthreads();
  }
  if (threadIdx.x == 0 && mass < wanted) taken = 0xffffffffu;
  __syncthreads();
  return taken;
}

// As blocks_for_target of policy/target.h; `chosen` and `sorted` are room for `cap` numbers. Where all that is left to choose
// from is not enough the answer is `cap`: blocks of minus infinity count there, and top_blocks leaves them out.
__device__ inline std::uint32_t blocks_for_target(const Settings &s, ScoreKind kind, const float *scores, std::uint32_t scored,
                                                  const Crop &crop, std::uint32_t cap, std::uint32_t *chosen, std::uint32_t *sorted) {
  Estimate estimate{scores, kind, 0.0f};
  if (kind == ScoreKind::kLog) estimate.max = max_of(scores, scored);
  const double fixed = mass_of(estimate, 0, crop.begin) + mass_of(estimate, crop.end, scored);
  const double wanted = static_cast<double>(s.c.target_mass) * (fixed + mass_of(estimate, crop.begin, crop.end));
  const std::uint32_t count = top_blocks(scores, crop.begin, crop.end - crop.begin, cap, chosen);
  sort_by_score(scores, chosen, count, sorted);
  const std::uint32_t taken = count_to(estimate, sorted, count, fixed, wanted);
  return taken < cap ? taken : cap;
}

}  // namespace
}  // namespace kvsift

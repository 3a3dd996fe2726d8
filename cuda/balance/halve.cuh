// One halving by one block: a list of rows, as CoresetBuilder::halve_list does it on the CPU. All threads of the
// block must call these; all see the result.
#pragma once

#include "core/philox.h"
#include "cuda/balance/gram.cuh"
#include "cuda/balance/keep.cuh"
#include "cuda/balance/walk.cuh"

namespace kvsift {
namespace {

// What the halvings of a head have in common. Rows (coreset_rows.cuh) tells of the rows that lists name.
template <class Rows>
struct HalveJob {
  Rows rows;
  std::uint32_t dim, group;
  std::uint32_t uniform;        // signs are fair coins
  float key_scale, value_offset, gamma;
  std::uint64_t seed;
  std::uint32_t layer, head;
  float *matrix;                // [order][order]
  std::uint32_t order;          // a multiple of kGramTile, at least the group
};

struct HalveShared {
  std::uint32_t order[KVSIFT_BALANCE_MAX_GROUP];  // the list: rows, ascending
  float weight[KVSIFT_BALANCE_MAX_GROUP];
  std::int8_t signs[KVSIFT_BALANCE_MAX_GROUP];
  float centre[KVSIFT_MAX_HEAD_DIM];
  float factor;
  Operands operands;
};

template <class Rows>
__device__ inline float uniform_of_row(const HalveJob<Rows> &job, std::uint32_t row, std::uint32_t draw) {
  return uniform_of(philox_at(job.seed, job.layer, job.head, job.rows.token(row), draw).word[0]);
}

// The mean key, rows added in order; a last, shorter group is centred as if zeros filled it up.
template <class Rows>
__device__ inline void find_centre(const HalveJob<Rows> &job, std::uint32_t count, HalveShared *shared) {
  const float share = 1.0f / static_cast<float>(job.group);
  job.rows.with_keys([&](auto element) {
    for (std::uint32_t c = threadIdx.x; c < job.dim; c += blockDim.x) {
      float sum = 0.0f;
#pragma unroll 8
      for (std::uint32_t i = 0; i < count; ++i) {
        sum += cut_off(job.rows.template key<decltype(element)>(shared->order[i], c));
      }
      shared->centre[c] = sum * share;
    }
  });
  __syncthreads();
}

// Half of the coordinates of one token of the tile, to shared memory: keys less the centre, or values with their weights.
template <bool Values, class Rows>
__device__ inline void load_row_lines(const HalveJob<Rows> &job, const TilePlace &tile, std::uint32_t count, std::uint32_t c,
                                      HalveShared *shared) {
  constexpr std::uint32_t kHalf = kDepth / 2;
  const bool of_rows = threadIdx.x < kGramThreads / 2;
  const std::uint32_t token = threadIdx.x / 2 % kGramTile, first = threadIdx.x % 2 * kHalf;
  const std::uint32_t member = (of_rows ? tile.j : tile.i) + token;
  float(*out)[kGramTile] = of_rows ? shared->operands.row : shared->operands.column;
  const std::uint32_t here = member < count && c + first < job.dim ? job.dim - (c + first) : 0;
  float x[kHalf] = {};
  if (here > 0) job.rows.template load<Values>(shared->order[member], c + first, here, x);
#pragma unroll
  for (std::uint32_t k = 0; k < kHalf; ++k) {
    if (k < here) {
      x[k] = cut_off(Values ? x[k] * shared->weight[member] : x[k]);
      if (!Values) x[k] = x[k] - shared->centre[c + first + k];
    }
    out[first + k][token] = x[k];
  }
}

template <class Rows>
__device__ inline void fill_matrix(const HalveJob<Rows> &job, std::uint32_t count, HalveShared *shared) {
  const std::uint32_t side = (count + kGramTile - 1) / kGramTile;
  for (std::uint32_t number = 0; number < side * (side + 1) / 2; ++number) {
    const TilePlace tile = tile_place(number);
    float keys[kEntries][kEntries], values[kEntries][kEntries];
    multiply(job.dim, shared->operands, [&](std::uint32_t c) { load_row_lines<false>(job, tile, count, c, shared); }, keys);
    multiply(job.dim, shared->operands, [&](std::uint32_t c) { load_row_lines<true>(job, tile, count, c, shared); }, values);
    put_entries(tile, keys, values, job.key_scale, job.value_offset, job.matrix, job.order);
  }
  __syncthreads();
}

// By one warp.
template <std::uint32_t Slots, class Rows>
__device__ inline void walk_list(const HalveJob<Rows> &job, std::uint32_t count, std::uint32_t draw, HalveShared *shared) {
  const std::uint32_t lane = threadIdx.x % kWarpThreads;
  float uniform[Slots];
  std::uint32_t plus[Slots];
#pragma unroll
  for (std::uint32_t t = 0; t < Slots; ++t) {
    const std::uint32_t i = t * kWarpThreads + lane;
    uniform[t] = i < count ? uniform_of_row(job, shared->order[i], draw) : 0.0f;
  }
  walk(WalkPlan{job.matrix, job.order, count, job.gamma}, uniform, plus);
#pragma unroll
  for (std::uint32_t t = 0; t < Slots; ++t) {
    const std::uint32_t i = t * kWarpThreads + lane;
    if (i < count) shared->signs[i] = (plus[t] >> lane & 1) != 0 ? 1 : -1;
  }
}

template <class Rows>
__device__ inline void sign_list(const HalveJob<Rows> &job, std::uint32_t count, std::uint32_t draw, HalveShared *shared) {
  if (job.uniform != 0) {
    for (std::uint32_t i = threadIdx.x; i < count; i += blockDim.x) {
      shared->signs[i] = i == 0 || uniform_of_row(job, shared->order[i], draw) < 0.5f ? 1 : -1;
    }
    __syncthreads();
    return;
  }
  constexpr std::uint32_t kSlots = KVSIFT_BALANCE_MAX_GROUP / kWarpThreads;
  find_centre(job, count, shared);
  fill_matrix(job, count, shared);
  if (threadIdx.x < kWarpThreads) {
    if (count <= KVSIFT_BALANCE_MAX_GROUP / 2) {
      walk_list<kSlots / 2>(job, count, draw, shared);
    } else {
      walk_list<kSlots>(job, count, draw, shared);
    }
  }
  __syncthreads();
}

__device__ inline float sum_in_order(const float *x, std::uint32_t count) {
  float sum = 0.0f;
#pragma unroll 8
  for (std::uint32_t i = 0; i < count; ++i) sum += x[i];
  return sum;
}

// Halves shared->order[0, count) with shared->weight, whose sum stays; returns how many are left. Weights at `level` are in
// units of 2^level, and its number tells its random numbers from another's.
template <class Rows>
__device__ inline std::uint32_t halve_list(const HalveJob<Rows> &job, std::uint32_t count, std::uint32_t level,
                                           HalveShared *shared) {
  const auto unit = static_cast<float>(1u << level);
  for (std::uint32_t i = threadIdx.x; i < count; i += blockDim.x) shared->weight[i] /= unit;
  __syncthreads();
  float before = 0.0f;
  if (threadIdx.x == 0) before = sum_in_order(shared->weight, count);
  std::uint32_t kept = count;
  if (count >= 2) {
    sign_list(job, count, level, shared);
    kept = keep_half_in_block(shared->signs, shared->order, shared->weight, count);
  }
  if (threadIdx.x == 0) shared->factor = unit * (before / sum_in_order(shared->weight, kept));
  __syncthreads();
  for (std::uint32_t i = threadIdx.x; i < kept; i += blockDim.x) shared->weight[i] *= shared->factor;
  __syncthreads();
  return kept;
}

}  // namespace
}  // namespace kvsift

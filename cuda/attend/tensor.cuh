// Attention with its products on tensor cores. A warp takes 16 tokens at a time, whose rows come through a ring in shared memory
// while it computes, and keeps a softmax of its own over them. Of the tensor cores' eight columns a query head has two: its
// query, and its weights, are the sum of two numbers of the rows' type, the rounded one and what that leaves, so that products lose
// next to nothing.
#pragma once

#include "cuda/attend/chunk.cuh"
#include "cuda/attend/ring.cuh"
#include "cuda/core/tensor.cuh"

namespace kvsift {
namespace {

constexpr std::uint32_t kMostWarps = kAttendThreads / kWarpThreads, kTensorDims = kDenseDim / 16;

// Weights are counted in this, so that what rounding leaves of a float16 is not below the least one; bfloat16 has the room.
template <class T>
constexpr float kWeightUnit = std::is_same<T, F16>::value ? 32768.0f : 1.0f;

// Queries as the right side of products, and what makes logits of their sums.
struct TensorQueries {
  uint2 *parts;  // [Tiles][dim16 / 16][lanes]
  float factor[8], unit[8];
};

// The power of two that brings `most` near 2^14: float16 holds what rounding leaves of a number that large.
__device__ inline float query_factor(float most) {
  std::uint32_t exponent = __float_as_uint(most) >> 23;
  exponent = exponent < 16 ? 16 : exponent > 253 ? 253 : exponent;
  return __uint_as_float((127 + 14 + 127 - exponent) << 23);
}

// A warp for each query head.
template <class T>
__device__ inline void find_factors(const Settings &s, const float *queries, TensorQueries *to) {
  const std::uint32_t g = threadIdx.x / kWarpThreads, lane = lane_of_warp();
  if (g < s.group) {
    float most = 0.0f;
    for (std::uint32_t c = lane; c < s.dim16; c += kWarpThreads) most = fmaxf(most, fabsf(queries[g * s.dim16 + c]));
#pragma unroll
    for (unsigned step = 16; step > 0; step /= 2) most = fmaxf(most, __shfl_xor_sync(kAllLanes, most, step));
    const float factor = std::is_same<T, F16>::value ? query_factor(most) : 1.0f;
    if (lane == 0) to->factor[g] = factor, to->unit[g] = s.scale / factor;
  } else if (g < 8 && lane == 0) {
    to->factor[g] = to->unit[g] = 0.0f;
  }
  __syncthreads();
}

// x to the nearest T, or what that leaves of it.
template <class T>
__device__ inline float part_of(float x, bool rest) {
  const float nearest = widen(T{static_cast<std::uint16_t>(round_pair<T>(x, 0.0f))});
  return rest ? x - nearest : nearest;
}

// Queries [group][dim16] in shared memory; of the heads beyond the group the factor is 0.
template <class T, int Tiles>
__device__ inline void part_queries(const Settings &s, const float *queries, TensorQueries *to) {
  find_factors<T>(s, queries, to);
  const std::uint32_t steps = s.dim16 / 16;
  for (std::uint32_t i = threadIdx.x; i < Tiles * steps * kWarpThreads; i += kAttendThreads) {
    const std::uint32_t lane = i % kWarpThreads, step = i / kWarpThreads % steps, tile = i / kWarpThreads / steps;
    const std::uint32_t g = tile * 4 + lane / 8, own = g < s.group ? g : 0;
    const float *x = queries + own * s.dim16 + step * 16 + lane % 4 * 2, factor = to->factor[g];
    const bool rest = lane / 4 % 2 != 0;
    to->parts[i] = uint2{round_pair<T>(part_of<T>(x[0] * factor, rest), part_of<T>(x[1] * factor, rest)),
                         round_pair<T>(part_of<T>(x[8] * factor, rest), part_of<T>(x[9] * factor, rest))};
  }
  __syncthreads();
}

// What a warp adds up: a lane has query head lane % 4 of each four, of its values columns lane / 4 and that + 8 of each 16, each
// as the sum of two.
template <int Tiles>
struct TensorSums {
  float out[Tiles][kTensorDims][4];
  float max[Tiles], sum[Tiles];  // the sum: of the lane's own tokens

  __device__ TensorSums() : out{} {
    for (int tile = 0; tile < Tiles; ++tile) max[tile] = -infinity(), sum[tile] = 0.0f;
  }
};

constexpr std::uint32_t kNoQuery = 0xffffffffu;

// Tokens at places [0, count), for all query heads or for one.
struct TensorTokens {
  const AttendPlan &plan;
  const std::uint32_t *tokens;  // in shared memory; null: the places are the tokens
  std::uint32_t count, only;

  // Beyond the end the last one again.
  __device__ std::uint32_t at(std::uint32_t place) const {
    const std::uint32_t own = place < count ? place : count - 1;
    return tokens == nullptr ? own : tokens[own];
  }
  __device__ bool counts(std::uint32_t place, std::uint32_t query) const {
    return place < count && (only == kNoQuery || only == query);
  }
};

// Rows of 16 places on their way into slot `to` of the ring.
__device__ inline void fetch_tile(const TensorTokens &from, const RowRing &ring, const kvsift_view &view, std::uint32_t place,
                                  std::uint8_t *to) {
  const AttendArgs &args = from.plan.args;
  const std::uint32_t head = from.plan.head.kv_head, token = from.at(place);
  PageTable table{args.cache.table, args.cache.page_shift};
  bool together = place + kRingRows <= from.count && from.at(place + kRingRows - 1) - token == kRingRows - 1;
  if (table.entries != nullptr) {
    table.entries += std::uint64_t{args.cache.table_stride} * head;
    const std::uint32_t last = token + kRingRows - 1;
    together = together && token >> table.shift == last >> table.shift && table.entries[token >> table.shift] >= 0;
  }
  if (together) {
    copy_rows(ring, row_source(ring, view, row_of_token(view, table, token, head).data), to);
  } else {
    copy_scattered(ring, args.call, head, view, table, to, [&](std::uint32_t r) { return from.at(place + r); });
  }
  end_copies();
}

// Logits of the lane's tokens, lane / 4 and that + 8, for its query heads.
template <class T, int Tiles>
__device__ inline void dot_tile(const Settings &s, const TensorQueries &queries, const std::uint8_t *keys, std::uint32_t pitch,
                                float (&logit)[Tiles][2]) {
  const std::uint32_t steps = s.dim16 / 16;
  float sum[Tiles][2][4] = {};  // two, whose products do not wait for each other
#pragma unroll
  for (std::uint32_t k = 0; k < kTensorDims; ++k) {
    if (k >= steps) continue;
    std::uint32_t left[4];
    load_left(keys + 32 * k, pitch, left);
#pragma unroll
    for (int tile = 0; tile < Tiles; ++tile) {
      const uint2 right = queries.parts[(static_cast<std::uint32_t>(tile) * steps + k) * kWarpThreads + lane_of_warp()];
      add_product<T>(sum[tile][k % 2], left, right);
    }
  }
#pragma unroll
  for (int tile = 0; tile < Tiles; ++tile) {
    const float unit = queries.unit[4 * static_cast<std::uint32_t>(tile) + lane_of_warp() % 4];
    const float(&a)[4] = sum[tile][0], (&b)[4] = sum[tile][1];
    logit[tile][0] = ((a[0] + b[0]) + (a[1] + b[1])) * unit;
    logit[tile][1] = ((a[2] + b[2]) + (a[3] + b[3])) * unit;
  }
}

__device__ inline float larger_of_rows(float x) {
#pragma unroll
  for (unsigned step = 4; step < kWarpThreads; step *= 2) x = fmaxf(x, __shfl_xor_sync(kAllLanes, x, step));
  return x;
}

// Logits to weights, of what `sums` has added up too.
template <int Tiles>
__device__ inline void weigh_tile(float (&logit)[Tiles][2], TensorSums<Tiles> *sums) {
  float most[Tiles];
  bool grows = false;
#pragma unroll
  for (int tile = 0; tile < Tiles; ++tile) {
    most[tile] = fmaxf(sums->max[tile], larger_of_rows(fmaxf(logit[tile][0], logit[tile][1])));
    grows = grows || most[tile] > sums->max[tile];
  }
  if (__any_sync(kAllLanes, grows)) {
#pragma unroll
    for (int tile = 0; tile < Tiles; ++tile) {
      const float factor = most[tile] > -infinity() ? exp1(sums->max[tile] - most[tile]) : 1.0f;
      sums->max[tile] = most[tile];
      sums->sum[tile] = sums->sum[tile] * factor;
#pragma unroll
      for (std::uint32_t i = 0; i < kTensorDims * 4; ++i) sums->out[tile][i / 4][i % 4] = sums->out[tile][i / 4][i % 4] * factor;
    }
  }
#pragma unroll
  for (int tile = 0; tile < Tiles; ++tile) {
#pragma unroll
    for (int k = 0; k < 2; ++k) {
      const float x = logit[tile][k];
      logit[tile][k] = most[tile] > -infinity() ? exp1(x - most[tile]) : x != x ? x : 0.0f;
      sums->sum[tile] = sums->sum[tile] + logit[tile][k];
    }
  }
}

// Weights of the tile as the right side of products: from the lanes that have the tokens to those that have the columns.
template <class T>
__device__ inline uint2 part_weights(const float (&weight)[2]) {
  const std::uint32_t lane = lane_of_warp(), from = lane % 4 * 8 + lane / 8;
  const bool rest = lane / 4 % 2 != 0;
  float x[2][2];
#pragma unroll
  for (std::uint32_t k = 0; k < 2; ++k) {
#pragma unroll
    for (std::uint32_t i = 0; i < 2; ++i) {
      x[k][i] = part_of<T>(__shfl_sync(kAllLanes, weight[k], from + 4 * i) * kWeightUnit<T>, rest);
    }
  }
  return uint2{round_pair<T>(x[0][0], x[0][1]), round_pair<T>(x[1][0], x[1][1])};
}

template <class T, int Tiles>
__device__ inline void add_tile(const Settings &s, const float (&weight)[Tiles][2], const std::uint8_t *values, std::uint32_t pitch,
                                TensorSums<Tiles> *sums) {
  const std::uint32_t steps = s.dim16 / 16;
  uint2 right[Tiles];
#pragma unroll
  for (int tile = 0; tile < Tiles; ++tile) right[tile] = part_weights<T>(weight[tile]);
#pragma unroll
  for (std::uint32_t m = 0; m < kTensorDims; ++m) {
    if (m >= steps) continue;
    std::uint32_t left[4];
    load_left_turned(values + 32 * m, pitch, left);
#pragma unroll
    for (int tile = 0; tile < Tiles; ++tile) add_product<T>(sums->out[tile][m], left, right[tile]);
  }
}

// Places [begin, end) of the tokens, keys and values in turns. ready() is called once the first rows are on their way.
template <class T, int Tiles, class Ready>
__device__ inline void add_tokens(const TensorTokens &from, const TensorQueries &queries, const RowRing &ring, std::uint32_t begin,
                                  std::uint32_t end, TensorSums<Tiles> *sums, Ready ready) {
  const Settings &s = from.plan.head.settings();
  const CacheArgs &cache = from.plan.args.cache;
  const auto next_slot = [](std::uint32_t slot) { return slot + 1 == kTensorSlots ? 0 : slot + 1; };
  if (begin < end) {
    fetch_tile(from, ring, cache.keys, begin, ring.slot(0));
    fetch_tile(from, ring, cache.values, begin, ring.slot(1));
  }
  ready();
  std::uint32_t slot = 0, free = 2;
#pragma unroll 1
  for (std::uint32_t place = begin; place < end; place += kRingRows) {
    const bool more = place + kRingRows < end;
    float weight[Tiles][2];
    wait_copies<1>();
    __syncwarp();
    more ? fetch_tile(from, ring, cache.keys, place + kRingRows, ring.slot(free)) : end_copies();
    dot_tile<T>(s, queries, ring.slot(slot), ring.pitch, weight);
    slot = next_slot(slot), free = next_slot(free);
#pragma unroll
    for (int tile = 0; tile < Tiles; ++tile) {
#pragma unroll
      for (std::uint32_t k = 0; k < 2; ++k) {
        const std::uint32_t query = 4 * static_cast<std::uint32_t>(tile) + lane_of_warp() % 4;
        if (!from.counts(place + lane_of_warp() / 4 + 8 * k, query)) weight[tile][k] = -infinity();
      }
    }
    weigh_tile(weight, sums);
    wait_copies<1>();
    __syncwarp();
    more ? fetch_tile(from, ring, cache.values, place + kRingRows, ring.slot(free)) : end_copies();
    add_tile<T>(s, weight, ring.slot(slot), ring.pitch, sums);
    slot = next_slot(slot), free = next_slot(free);
  }
  wait_copies<0>();
  __syncwarp();
}

}  // namespace
}  // namespace kvsift

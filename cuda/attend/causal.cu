#include "cuda/attend/causal_tile.cuh"

namespace kvsift {
namespace {

constexpr int kColumnParts = KVSIFT_MAX_HEAD_DIM / 64;  // a lane has two neighbouring columns in each

__device__ inline void widen4(const float *p, float (&out)[4]) {
  const float4 v = *reinterpret_cast<const float4 *>(p);
  out[0] = v.x, out[1] = v.y, out[2] = v.z, out[3] = v.w;
}
__device__ inline void widen4(const std::int8_t *p, float (&out)[4]) {
  const unsigned word = *reinterpret_cast<const unsigned *>(p);
#pragma unroll
  for (int i = 0; i < 4; ++i) out[i] = widen(static_cast<std::int8_t>(word >> 8 * i & 0xffu));
}
template <class T>
__device__ inline void widen4(const T *p, float (&out)[4]) {
  const uint2 words = *reinterpret_cast<const uint2 *>(p);
  float two[2];
  unpack2<T>(words.x, two);
  out[0] = two[0], out[1] = two[1];
  unpack2<T>(words.y, two);
  out[2] = two[0], out[3] = two[1];
}

using Sums = float[kItemsOfWarp][kTokensOfPair][4];

// Four of the lanes' sums, of elements c, c + 1, ... c + 3, c + 16, ...
template <class T>
__device__ inline void add_lanes(const Tile<T> &tile, const typename Tile<T>::Type *rows, std::uint32_t c, Sums &sum) {
  const float *queries = tile.queries + (c / 8 * kCausalItems + tile.own(0)) * 8 + c % 8;
  const auto *first = rows + tile.lane() / 2 * tile.stride() + c, *second = first + kCausalStage / 2 * tile.stride();
#pragma unroll 2
  for (; c < tile.columns(); c += 16, queries += 16 * kCausalItems, first += 16, second += 16) {
    float a[4], b[4];
    widen4(first, a);
    widen4(second, b);
#pragma unroll
    for (int q = 0; q < kItemsOfWarp; ++q) {
      float x[4];
      widen4(queries + q * 8, x);
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        sum[q][0][i] = __fmaf_rn(x[i], a[i], sum[q][0][i]);
        sum[q][1][i] = __fmaf_rn(x[i], b[i], sum[q][1][i]);
      }
    }
  }
}

// Logits of a stage for the warp's items. A pair of threads has two tokens; the even one has lanes 0 .. 3 and 8 .. 11 of their
// sums, the odd one the others, and each finishes one token.
template <class T>
__device__ inline void dot_stage(const Tile<T> &tile, const typename Tile<T>::Type *rows, std::uint32_t n) {
  const std::uint32_t half = tile.lane() % 2;
  Sums low = {}, high = {};
  add_lanes(tile, rows, half * 4, low);
  add_lanes(tile, rows, 8 + half * 4, high);
  __syncwarp();
  const std::uint32_t at = tile.lane() / 2 + half * (kCausalStage / 2), token = token_of_stage(n) + at;
#pragma unroll
  for (int q = 0; q < kItemsOfWarp; ++q) {
    float x[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float first = low[q][0][i] + high[q][0][i], second = low[q][1][i] + high[q][1][i];
      x[i] = (half == 0 ? first : second) + __shfl_xor_sync(kAllLanes, half == 0 ? second : first, 1);
    }
    float dot = (x[0] + x[2]) + (x[1] + x[3]);
    if (tile.args.keys.scales != nullptr) dot = dot * tile.items.scales[n % 2][at];
    const bool visible = token < tile.items.seen[tile.own(q)];
    tile.own_logits(q)[n % kStagesOfPass * kCausalStage + at] = visible ? dot * tile.s().scale : -infinity();
  }
}

// The warp's logits become exp(logit - max). Sums: lane i of 16 adds elements i, i + 16 ..., then the tree; two rows at once.
template <class T>
__device__ inline void soften(const Tile<T> &tile, std::uint32_t count) {
  __syncwarp();
#pragma unroll
  for (int q = 0; q < kItemsOfWarp; ++q) {
    float *row = tile.own_logits(q), max = -infinity();
    for (std::uint32_t i = tile.lane(); i < count; i += kWarpThreads) max = row[i] > max ? row[i] : max;
#pragma unroll
    for (unsigned step = 16; step > 0; step /= 2) {
      const float other = __shfl_xor_sync(kAllLanes, max, step);
      max = other > max ? other : max;
    }
    for (std::uint32_t i = tile.lane(); i < count; i += kWarpThreads) row[i] = exp1(row[i] - max);
    if (tile.lane() == 0) tile.items.chunk_max[tile.own(q)] = max;
  }
  __syncwarp();
#pragma unroll
  for (int q = 0; q < kItemsOfWarp; q += 2) {
    const float *row = tile.own_logits(q) + tile.lane() / 16 * kRowFloats;
    float sum = 0.0f;
#pragma unroll 4
    for (std::uint32_t i = tile.lane() % 16; i < count; i += 16) sum = sum + row[i];
#pragma unroll
    for (unsigned step = 8; step > 0; step /= 2) sum = sum + __shfl_xor_sync(kAllLanes, sum, step);
    if (tile.lane() % 16 == 0) tile.items.chunk_sum[tile.own(q) + tile.lane() / 16] = sum;
  }
  __syncwarp();
}

__device__ inline void load2(const float *p, float (&out)[2]) {
  const float2 v = *reinterpret_cast<const float2 *>(p);
  out[0] = v.x, out[1] = v.y;
}
__device__ inline void load2(const std::int8_t *p, float (&out)[2]) { out[0] = widen(p[0]), out[1] = widen(p[1]); }
__device__ inline void load2(const F16 *p, float (&out)[2]) { unpack2<F16>(*reinterpret_cast<const unsigned *>(p), out); }
__device__ inline void load2(const BF16 *p, float (&out)[2]) { unpack2<BF16>(*reinterpret_cast<const unsigned *>(p), out); }

using Weighted = float[kColumnParts][kItemsOfWarp][2];

// The warp's weights times a stage of values, token after token. Whole: every item sees every token.
template <class T, bool kWhole>
__device__ inline void weigh_stage(const Tile<T> &tile, const typename Tile<T>::Type *rows, std::uint32_t n, std::uint32_t count,
                                   Weighted &acc) {
  const std::uint32_t columns = tile.columns(), begin = token_of_stage(n);
  const float *weights = tile.own_logits(0) + n % kStagesOfPass * kCausalStage;
  const bool scaled = tile.args.values.scales != nullptr;
  std::uint32_t seen[kItemsOfWarp];
#pragma unroll
  for (int q = 0; q < kItemsOfWarp; ++q) seen[q] = tile.items.seen[tile.own(q)];
#pragma unroll 1
  for (std::uint32_t t = 0; t < count; t += 4) {
    float w[kItemsOfWarp][4];
#pragma unroll
    for (int q = 0; q < kItemsOfWarp; ++q) {
      const float4 four = *reinterpret_cast<const float4 *>(weights + q * kRowFloats + t);
      w[q][0] = four.x, w[q][1] = four.y, w[q][2] = four.z, w[q][3] = four.w;
    }
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const float scale = scaled ? tile.items.scales[n % 2][t + j] : 1.0f;
      const auto *row = rows + (t + j) * tile.stride();
#pragma unroll
      for (int part = 0; part < kColumnParts; ++part) {
        if (part * 64u >= columns) break;
        const std::uint32_t column = part * 64 + tile.lane() * 2;
        float value[2];
        load2(row + (column < columns ? column : 0), value);
#pragma unroll
        for (int q = 0; q < kItemsOfWarp; ++q) {
          if (!kWhole && begin + t + j >= seen[q]) continue;
          const float weight = scaled ? w[q][j] * scale : w[q][j];
          acc[part][q][0] = __fmaf_rn(weight, value[0], acc[part][q][0]);
          acc[part][q][1] = __fmaf_rn(weight, value[1], acc[part][q][1]);
        }
      }
    }
  }
}

// f(part, column) for this thread's columns.
template <class T, class F>
__device__ inline void each_column(const Tile<T> &tile, F f) {
#pragma unroll
  for (int part = 0; part < kColumnParts; ++part) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const std::uint32_t column = part * 64 + tile.lane() * 2 + i;
      if (column < tile.s().c.head_dim) f(part, i, column);
    }
  }
}

// Outputs grow in place, as on the CPU.
template <class T>
__device__ inline void merge(const Tile<T> &tile, std::uint32_t base, const Weighted &acc) {
#pragma unroll
  for (int q = 0; q < kItemsOfWarp; ++q) {
    const std::uint32_t item = tile.own(q);
    if (tile.items.seen[item] <= base) continue;
    const float max = tile.items.max[item], chunk_max = tile.items.chunk_max[item], larger = max > chunk_max ? max : chunk_max;
    const float a = exp1(max - larger), b = exp1(chunk_max - larger);
    float *out = tile.out(item);
    each_column(tile, [&](int part, int i, std::uint32_t column) {
      out[column] = __fmaf_rn(a, base == 0 ? 0.0f : out[column], b * acc[part][q][i]);
    });
    __syncwarp();
    if (tile.lane() != 0) continue;
    tile.items.sum[item] = __fmaf_rn(a, tile.items.sum[item], b * tile.items.chunk_sum[item]);
    tile.items.max[item] = larger;
  }
  __syncwarp();
}

template <class T>
__device__ inline void finish(const Tile<T> &tile) {
#pragma unroll 1
  for (int q = 0; q < kItemsOfWarp; ++q) {
    const std::uint32_t item = tile.own(q);
    if (tile.first + item >= tile.end) continue;
    float *out = tile.out(item);
    const float inverse = 1.0f / tile.items.sum[item];
    each_column(tile, [&](int, int, std::uint32_t column) {
      const float x = out[column] * inverse;
      out[column] = x;
      if (x - x != 0.0f) report(tile.args.call, kFaultAttention, tile.head.kv_head);
    });
  }
}

template <class T>
__device__ inline void walk(const Tile<T> &tile) {
  begin(tile);
  const std::uint32_t limit = tile.items.seen[tile.end - 1 - tile.first], least = tile.items.seen[0];
  fetch(tile, 0, limit);
  fetch(tile, 1, limit);
#pragma unroll 1
  for (std::uint32_t base = 0, n = 0; base < limit; base += kChunk) {
#pragma unroll 1
    for (std::uint32_t i = 0; i < kStagesOfPass; ++i, ++n) {
      with_stage(tile, n, limit, [&](const auto *rows, std::uint32_t) { dot_stage(tile, rows, n); });
    }
    soften(tile, limit - base < kChunk ? limit - base : kChunk);
    Weighted acc = {};
#pragma unroll 1
    for (std::uint32_t i = 0; i < kStagesOfPass; ++i, ++n) {
      with_stage(tile, n, limit, [&](const auto *rows, std::uint32_t here) {
        if (base + kChunk <= least) {
          weigh_stage<T, true>(tile, rows, n, here, acc);
        } else {
          weigh_stage<T, false>(tile, rows, n, here, acc);
        }
      });
    }
    merge(tile, base, acc);
  }
  finish(tile);
}

// The longest tiles first.
template <class T>
__device__ inline void causal(const CausalArgs &args, char *shared) {
  __shared__ Items items;
  const DeviceHead head = head_of(args.call);
  const Settings &s = head.settings();
  const std::uint32_t count = args.rows * s.group, first = (gridDim.x - 1 - blockIdx.x) * kCausalItems;
  auto *queries = reinterpret_cast<float *>(shared), *logits = queries + kCausalItems * s.dim16;
  auto *rows = reinterpret_cast<typename Tile<T>::Type *>(logits + kCausalItems * kRowFloats);
  walk(Tile<T>{args, head, items, queries, logits, rows, first, first + kCausalItems < count ? first + kCausalItems : count});
}

}  // namespace
}  // namespace kvsift

using namespace kvsift;

KVSIFT_KERNELS_OF_TYPES(causal, causal, CausalArgs, kCausalThreads, 2)

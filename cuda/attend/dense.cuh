// Attention over everything where the cache is long: a warp takes a chunk of its own, whose rows come through a ring in
// shared memory while it computes. The sums are those of the chunks that a block takes together.
#pragma once

#include "cuda/attend/plan.cuh"
#include "cuda/attend/quad.cuh"
#include "cuda/attend/ring.cuh"

namespace kvsift {
namespace {

struct DenseRing : RowRing {
  float *scales;  // [2][kRingRows], of int8 rows
};

__device__ inline DenseRing dense_ring(const DenseRoom &room, char *own, std::uint32_t row_bytes) {
  return DenseRing{row_ring(own + room.logits + room.scales, room.pitch, row_bytes), reinterpret_cast<float *>(own + room.logits)};
}

// One warp's chunk: tokens [first, first + count) of all.
template <int Tiles>
struct DenseChunk {
  const AttendPlan &plan;
  const float *queries;         // [heads, to a multiple of four][dim16]
  float4 *logits;               // [Tiles][kChunk]: of four query heads each; soften makes them exp(logit - max)
  DenseRing ring;
  std::uint32_t slot, first, count;
  float max[Tiles][4], sum[Tiles][4];

  __device__ std::uint32_t stages() const { return blocks_of(count, kRingRows); }
  __device__ std::uint32_t heads() const { return plan.head.settings().group; }
  __device__ const std::uint8_t *row(std::uint32_t in_slot, std::uint32_t r) const {
    return ring.rows + (in_slot * kRingRows + r) * ring.pitch;
  }
};

// At the chunk's first row; of a page table the stages find their own.
template <int Tiles>
__device__ inline RowSource dense_start(const DenseChunk<Tiles> &chunk, const kvsift_view &view) {
  return row_source(chunk.ring, view, row_of(view, 0, chunk.first, chunk.plan.head.kv_head).data);
}

template <int Tiles>
__device__ inline void fetch_scales(const DenseChunk<Tiles> &chunk, const kvsift_view &view, const PageTable &table,
                                    std::uint32_t slot, std::uint32_t from) {
  const std::uint32_t r = lane_of_warp(), i = from + r;
  if (r >= kRingRows) return;
  const std::uint32_t token = chunk.first + (i < chunk.count ? i : chunk.count - 1);
  chunk.ring.scales[slot * kRingRows + r] = row_of_token(view, table, token, chunk.plan.head.kv_head).scale;
}

// Stage `stage` of keys or of values on its way into slot `slot` of the ring. Beyond the chunk's end its last row again.
template <class T, int Tiles>
__device__ inline void fetch_rows(const DenseChunk<Tiles> &chunk, const kvsift_view &view, std::uint32_t stage, std::uint32_t slot,
                                  RowSource *source) {
  const CacheArgs &cache = chunk.plan.args.cache;
  const std::uint32_t from = stage * kRingRows, token = chunk.first + from, head = chunk.plan.head.kv_head;
  std::uint8_t *to = chunk.ring.rows + slot * kRingRows * chunk.ring.pitch;
  PageTable table{cache.table, cache.page_shift};
  bool together = from + kRingRows <= chunk.count;
  if (table.entries != nullptr) {
    table.entries += std::uint64_t{cache.table_stride} * head;
    together = together && 1u << table.shift >= kRingRows && table.entries[token >> table.shift] >= 0;
    if (together) *source = row_source(chunk.ring, view, row_of_token(view, table, token, head).data);
  }
  if (together) {
    copy_rows(chunk.ring, *source, to);
  } else {
    copy_scattered(chunk.ring, chunk.plan.args.call, head, view, table, to, [&](std::uint32_t r) {
      return chunk.first + (from + r < chunk.count ? from + r : chunk.count - 1);
    });
  }
  source->from += source->stage;
  if (sizeof(T) == 1) fetch_scales(chunk, view, table, slot, from);
  end_copies();
}

// Logits of the stage's tokens: quad k of the warp takes rows k and k + 8.
template <class T, int Tiles>
__device__ inline void dot_rows(const DenseChunk<Tiles> &chunk, std::uint32_t stage, std::uint32_t slot) {
  const Settings &s = chunk.plan.head.settings();
  const std::uint32_t lane = lane_of_warp(), k = lane / 4, q = lane % 4;
  const auto *low = reinterpret_cast<const T *>(chunk.row(slot, k));
  const auto *high = reinterpret_cast<const T *>(chunk.row(slot, k + 8));
#pragma unroll
  for (int tile = 0; tile < Tiles; ++tile) {
    const float *queries = chunk.queries + tile * 4 * s.dim16;
    float lanes[2][4][4] = {};
    by_elements<4>(s.c.head_dim, [&](std::uint32_t c) {
      float a[4], b[4];
      load4(low + c, a);
      load4(high + c, b);
#pragma unroll
      for (int h = 0; h < 4; ++h) {
        float x[4];
        load4(queries + h * s.dim16 + c, x);
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          lanes[0][h][i] = __fmaf_rn(x[i], a[i], lanes[0][h][i]);
          lanes[1][h][i] = __fmaf_rn(x[i], b[i], lanes[1][h][i]);
        }
      }
    });
    float dot[2];
    sums_of_two(lanes, dot);
    const std::uint32_t r = k + q / 2 * 8;
    if (sizeof(T) == 1) {
      const float scale = chunk.ring.scales[slot * kRingRows + r];
      dot[0] = dot[0] * scale, dot[1] = dot[1] * scale;
    }
    auto *to = reinterpret_cast<float2 *>(chunk.logits + tile * kChunk + stage * kRingRows + r) + q % 2;
    *to = make_float2(dot[0] * s.scale, dot[1] * s.scale);
  }
}

__device__ inline float &part(float4 &v, int i) { return i == 0 ? v.x : i == 1 ? v.y : i == 2 ? v.z : v.w; }

// As soften of chunk.cuh, of four query heads at a time.
template <int Tiles>
__device__ inline void soften_warp(DenseChunk<Tiles> *chunk) {
  const std::uint32_t lane = lane_of_warp();
#pragma unroll
  for (int tile = 0; tile < Tiles; ++tile) {
    float4 *logits = chunk->logits + tile * kChunk;
    float(&max)[4] = chunk->max[tile];
    float(&sum)[4] = chunk->sum[tile];
    for (int h = 0; h < 4; ++h) max[h] = -infinity(), sum[h] = 0.0f;
#pragma unroll
    for (std::uint32_t n = 0; n < kChunk / kWarpThreads; ++n) {
      const std::uint32_t i = n * kWarpThreads + lane;
      if (i >= chunk->count) continue;
      float4 x = logits[i];
#pragma unroll
      for (int h = 0; h < 4; ++h) max[h] = part(x, h) > max[h] ? part(x, h) : max[h];
    }
#pragma unroll
    for (int h = 0; h < 4; ++h) {
#pragma unroll
      for (unsigned step = 16; step > 0; step /= 2) {
        const float other = __shfl_xor_sync(kAllLanes, max[h], step);
        max[h] = other > max[h] ? other : max[h];
      }
    }
#pragma unroll 2
    for (std::uint32_t n = 0; n < kChunk / kWarpThreads; ++n) {
      const std::uint32_t i = n * kWarpThreads + lane;
      if (i >= chunk->count) continue;
      float4 x = logits[i];
#pragma unroll
      for (int h = 0; h < 4; ++h) part(x, h) = max[h] > -infinity() ? exp1(part(x, h) - max[h]) : 0.0f;
      logits[i] = x;
    }
    __syncwarp();
#pragma unroll 4
    for (std::uint32_t n = 0; n < kChunk / 16; ++n) {
      const std::uint32_t i = n * 16 + lane;
      const bool counts = lane < 16 && i < chunk->count;
      float4 x = logits[counts ? i : 0];
#pragma unroll
      for (int h = 0; h < 4; ++h) sum[h] = counts ? sum[h] + part(x, h) : sum[h];
    }
#pragma unroll
    for (int h = 0; h < 4; ++h) {
#pragma unroll
      for (unsigned step = 8; step > 0; step /= 2) sum[h] = sum[h] + __shfl_xor_sync(kAllLanes, sum[h], step);
    }
  }
  __syncwarp();
}

// Weighted values of the stage: a lane has four columns of all query heads.
template <class T, int Tiles>
__device__ inline void add_values(const DenseChunk<Tiles> &chunk, std::uint32_t stage, std::uint32_t slot, std::uint32_t column,
                                  float (&acc)[Tiles][4][4]) {
  const std::uint32_t from = stage * kRingRows;
  const std::uint32_t here = chunk.count - from < kRingRows ? chunk.count - from : kRingRows;
  const auto add = [&](std::uint32_t r) {
    float value[4];
    load4(reinterpret_cast<const T *>(chunk.row(slot, r)) + column, value);
#pragma unroll
    for (int tile = 0; tile < Tiles; ++tile) {
      float4 weight = chunk.logits[tile * kChunk + from + r];
#pragma unroll
      for (int h = 0; h < 4; ++h) {
        float w = part(weight, h);
        if (sizeof(T) == 1) w = w * chunk.ring.scales[slot * kRingRows + r];
#pragma unroll
        for (int i = 0; i < 4; ++i) acc[tile][h][i] = __fmaf_rn(w, value[i], acc[tile][h][i]);
      }
    }
  };
  if (here == kRingRows) {
#pragma unroll 4
    for (std::uint32_t r = 0; r < kRingRows; ++r) add(r);
  } else {
    for (std::uint32_t r = 0; r < here; ++r) add(r);
  }
}

}  // namespace
}  // namespace kvsift

// Attention over everything where the cache is long: a warp takes a chunk of its own, whose rows come through a ring in
// shared memory while it computes. The sums are those of the chunks that a block takes together.
#pragma once

#include "cuda/attend/plan.cuh"
#include "cuda/attend/quad.cuh"
#include "cuda/core/copy.cuh"
#include "cuda/policy/rows.cuh"

namespace kvsift {
namespace {

struct DenseRing {
  std::uint8_t *rows;  // [2][kDenseRows] of `pitch` bytes
  float *scales;       // [2][kDenseRows], of int8 rows
  std::uint32_t pitch;
  std::uint32_t of, piece, each;  // the lane copies 16 bytes at `piece` of rows `of`, `of` + `each` ...; none if `of` is `each`
};

__device__ inline std::uint32_t lane_of_warp() { return threadIdx.x % kWarpThreads; }

__device__ inline DenseRing dense_ring(const DenseRoom &room, char *own, std::uint32_t row_bytes) {
  const std::uint32_t pieces = row_bytes / 16, each = kWarpThreads / pieces;
  return DenseRing{reinterpret_cast<std::uint8_t *>(own + room.logits + room.scales), reinterpret_cast<float *>(own + room.logits),
                   room.pitch, lane_of_warp() / pieces, lane_of_warp() % pieces * 16, each};
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

  __device__ std::uint32_t stages() const { return blocks_of(count, kDenseRows); }
  __device__ std::uint32_t heads() const { return plan.head.settings().group; }
  __device__ const std::uint8_t *row(std::uint32_t in_slot, std::uint32_t r) const {
    return ring.rows + (in_slot * kDenseRows + r) * ring.pitch;
  }
};

// Where a lane's copies of the next stage come from, as long as rows lie at one stride.
struct DenseSource {
  const std::uint8_t *from;    // of its first row
  std::uint64_t step, stage;   // to its next one, and to the next stage's
};

__device__ inline DenseSource dense_source(const DenseRing &ring, const kvsift_view &view, const std::uint8_t *row) {
  return DenseSource{row + ring.of * view.token_stride + ring.piece, ring.each * view.token_stride, kDenseRows * view.token_stride};
}

// At the chunk's first row; of a page table the stages find their own.
template <int Tiles>
__device__ inline DenseSource dense_start(const DenseChunk<Tiles> &chunk, const kvsift_view &view) {
  return dense_source(chunk.ring, view, row_of(view, 0, chunk.first, chunk.plan.head.kv_head).data);
}

__device__ inline void copy_rows(const DenseRing &ring, const DenseSource &source, std::uint8_t *to) {
  const std::uint8_t *from = source.from;
  to += ring.of * ring.pitch + ring.piece;
  if (ring.each == 2) {
#pragma unroll
    for (std::uint32_t n = 0; n < kDenseRows / 2; ++n, from += source.step, to += 2 * ring.pitch) copy_async(to, from);
  } else if (ring.of < ring.each) {
    for (std::uint32_t r = ring.of; r < kDenseRows; r += ring.each, from += source.step, to += ring.each * ring.pitch) {
      copy_async(to, from);
    }
  }
}

// Rows of a page table whose pages are shorter than a stage, or of which some are missing: one lane finds each.
template <int Tiles>
__device__ inline void copy_scattered(const DenseChunk<Tiles> &chunk, const kvsift_view &view, const PageTable &table,
                                      std::uint32_t from, std::uint8_t *to) {
  const std::uint32_t r = lane_of_warp() % kDenseRows, i = from + r;
  const std::uint32_t token = chunk.first + (i < chunk.count ? i : chunk.count - 1), head = chunk.plan.head.kv_head;
  if (table.entries != nullptr && table.entries[token >> table.shift] < 0) report(chunk.plan.args.call, kFaultTable, head);
  const auto address = reinterpret_cast<std::uintptr_t>(row_of_token(view, table, token, head).data);
  for (std::uint32_t n = 0; n < kDenseRows; n += chunk.ring.each) {
    const std::uint32_t row = n + chunk.ring.of;
    const std::uintptr_t own = __shfl_sync(kAllLanes, address, row % kDenseRows);
    if (chunk.ring.of >= chunk.ring.each || row >= kDenseRows) continue;
    copy_async(to + row * chunk.ring.pitch + chunk.ring.piece, reinterpret_cast<const std::uint8_t *>(own) + chunk.ring.piece);
  }
}

template <int Tiles>
__device__ inline void fetch_scales(const DenseChunk<Tiles> &chunk, const kvsift_view &view, const PageTable &table,
                                    std::uint32_t slot, std::uint32_t from) {
  const std::uint32_t r = lane_of_warp(), i = from + r;
  if (r >= kDenseRows) return;
  const std::uint32_t token = chunk.first + (i < chunk.count ? i : chunk.count - 1);
  chunk.ring.scales[slot * kDenseRows + r] = row_of_token(view, table, token, chunk.plan.head.kv_head).scale;
}

// Stage `stage` of keys or of values on its way into slot `slot` of the ring. Beyond the chunk's end its last row again.
template <class T, int Tiles>
__device__ inline void fetch_rows(const DenseChunk<Tiles> &chunk, const kvsift_view &view, std::uint32_t stage, std::uint32_t slot,
                                  DenseSource *source) {
  const CacheArgs &cache = chunk.plan.args.cache;
  const std::uint32_t from = stage * kDenseRows, token = chunk.first + from, head = chunk.plan.head.kv_head;
  std::uint8_t *to = chunk.ring.rows + slot * kDenseRows * chunk.ring.pitch;
  PageTable table{cache.table, cache.page_shift};
  bool together = from + kDenseRows <= chunk.count;
  if (table.entries != nullptr) {
    table.entries += std::uint64_t{cache.table_stride} * head;
    together = together && 1u << table.shift >= kDenseRows && table.entries[token >> table.shift] >= 0;
    if (together) *source = dense_source(chunk.ring, view, row_of_token(view, table, token, head).data);
  }
  if (together) {
    copy_rows(chunk.ring, *source, to);
  } else {
    copy_scattered(chunk, view, table, from, to);
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
      const float scale = chunk.ring.scales[slot * kDenseRows + r];
      dot[0] = dot[0] * scale, dot[1] = dot[1] * scale;
    }
    auto *to = reinterpret_cast<float2 *>(chunk.logits + tile * kChunk + stage * kDenseRows + r) + q % 2;
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
  const std::uint32_t from = stage * kDenseRows;
  const std::uint32_t here = chunk.count - from < kDenseRows ? chunk.count - from : kDenseRows;
  const auto add = [&](std::uint32_t r) {
    float value[4];
    load4(reinterpret_cast<const T *>(chunk.row(slot, r)) + column, value);
#pragma unroll
    for (int tile = 0; tile < Tiles; ++tile) {
      float4 weight = chunk.logits[tile * kChunk + from + r];
#pragma unroll
      for (int h = 0; h < 4; ++h) {
        float w = part(weight, h);
        if (sizeof(T) == 1) w = w * chunk.ring.scales[slot * kDenseRows + r];
#pragma unroll
        for (int i = 0; i < 4; ++i) acc[tile][h][i] = __fmaf_rn(w, value[i], acc[tile][h][i]);
      }
    }
  };
  if (here == kDenseRows) {
#pragma unroll 4
    for (std::uint32_t r = 0; r < kDenseRows; ++r) add(r);
  } else {
    for (std::uint32_t r = 0; r < here; ++r) add(r);
  }
}

}  // namespace
}  // namespace kvsift

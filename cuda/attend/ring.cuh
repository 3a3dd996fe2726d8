// Rows on their way into a warp's own ring in shared memory, kRingRows at a time, while it computes.
#pragma once

#include "cuda/attend/attend.h"
#include "cuda/core/copy.cuh"
#include "cuda/policy/image.cuh"
#include "cuda/policy/rows.cuh"

namespace kvsift {
namespace {

struct RowRing {
  std::uint8_t *rows;  // [slots][kRingRows] of `pitch` bytes
  std::uint32_t pitch;
  std::uint32_t of, piece, each;  // the lane copies 16 bytes at `piece` of rows `of`, `of` + `each` ...; none if `of` is `each`

  __device__ std::uint8_t *slot(std::uint32_t i) const { return rows + i * kRingRows * pitch; }
};

__device__ inline std::uint32_t lane_of_warp() { return threadIdx.x % kWarpThreads; }

__device__ inline RowRing row_ring(char *rows, std::uint32_t pitch, std::uint32_t row_bytes) {
  const std::uint32_t pieces = row_bytes / 16, each = kWarpThreads / pieces;
  return RowRing{reinterpret_cast<std::uint8_t *>(rows), pitch, lane_of_warp() / pieces, lane_of_warp() % pieces * 16, each};
}

// Where a lane's copies of the next stage come from, as long as rows lie at one stride.
struct RowSource {
  const std::uint8_t *from;    // of its first row
  std::uint64_t step, stage;   // to its next one, and to the next stage's
};

__device__ inline RowSource row_source(const RowRing &ring, const kvsift_view &view, const std::uint8_t *row) {
  return RowSource{row + ring.of * view.token_stride + ring.piece, ring.each * view.token_stride, kRingRows * view.token_stride};
}

__device__ inline void copy_rows(const RowRing &ring, const RowSource &source, std::uint8_t *to) {
  const std::uint8_t *from = source.from;
  to += ring.of * ring.pitch + ring.piece;
  if (ring.each == 2) {
#pragma unroll
    for (std::uint32_t n = 0; n < kRingRows / 2; ++n, from += source.step, to += 2 * ring.pitch) {
      if (ring.of < ring.each) copy_async(to, from);
    }
  } else if (ring.of < ring.each) {
    for (std::uint32_t r = ring.of; r < kRingRows; r += ring.each, from += source.step, to += ring.each * ring.pitch) {
      copy_async(to, from);
    }
  }
}

// Rows of tokens token_of(0 .. kRingRows - 1) that lie anywhere: one lane finds each. A missing page is told.
template <class Tokens>
__device__ inline void copy_scattered(const RowRing &ring, const Call &call, std::uint32_t head, const kvsift_view &view,
                                      const PageTable &table, std::uint8_t *to, Tokens token_of) {
  const std::uint32_t token = token_of(lane_of_warp() % kRingRows);
  if (table.entries != nullptr && table.entries[token >> table.shift] < 0) report(call, kFaultTable, head);
  const auto address = reinterpret_cast<std::uintptr_t>(row_of_token(view, table, token, head).data);
  for (std::uint32_t n = 0; n < kRingRows; n += ring.each) {
    const std::uint32_t row = n + ring.of;
    const std::uintptr_t own = __shfl_sync(kAllLanes, address, row % kRingRows);
    if (ring.of >= ring.each || row >= kRingRows) continue;
    copy_async(to + row * ring.pitch + ring.piece, reinterpret_cast<const std::uint8_t *>(own) + ring.piece);
  }
}

}  // namespace
}  // namespace kvsift

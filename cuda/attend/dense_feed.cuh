// How rows come to a warp of the dense form: by copies of 16 bytes into its ring, two stages ahead of use.
#pragma once

#include "cuda/attend/plan.cuh"
#include "cuda/core/copy.cuh"
#include "cuda/policy/rows.cuh"

namespace kvsift {
namespace {

__device__ inline std::uint32_t lane_of_warp() { return threadIdx.x % kWarpThreads; }

struct DenseRing {
  std::uint8_t *rows;  // [2] slots
  float *scales;       // [2][kDenseValueRows], of int8 rows
  std::uint32_t slot_bytes;

  __device__ std::uint8_t *row(std::uint32_t slot, std::uint32_t r, std::uint32_t pitch) const {
    return rows + slot * slot_bytes + r * pitch;
  }
  __device__ float &scale(std::uint32_t slot, std::uint32_t r) const { return scales[slot * kDenseValueRows + r]; }
};

// The warp's part of the chunk's keys or values: stages of `rows` rows, the n-th from row begin + n * skip of the chunk on.
struct DenseFeed {
  const kvsift_view *view;
  std::uint32_t rows, begin, skip, pitch;
  std::uint32_t of, each, at;  // the lane copies 16 bytes at `at` of a row's bytes, of rows of, of + each ...; none if of is each
  std::uint32_t to;            // and puts them there in the ring's row

  __device__ std::uint32_t stages(std::uint32_t count) const { return count > begin ? (count - begin + skip - 1) / skip : 0; }
};

__device__ inline DenseFeed dense_feed(const kvsift_view &view, std::uint32_t bytes, std::uint32_t from) {
  const std::uint32_t pieces = bytes / 16, each = kWarpThreads / pieces, lane = lane_of_warp();
  const std::uint32_t to = lane % pieces * 16;
  return DenseFeed{&view, 0, 0, 0, 0, lane / pieces < each ? lane / pieces : each, each, from + to, to};
}

// 16 rows that lie at one stride.
__device__ inline void copy_rows(const DenseFeed &feed, const std::uint8_t *row, std::uint8_t *to) {
  const std::uint64_t step = feed.each * feed.view->token_stride;
  const std::uint8_t *from = row + feed.of * feed.view->token_stride + feed.at;
  to += feed.of * feed.pitch + feed.to;
  if (feed.each == 2) {
#pragma unroll
    for (std::uint32_t n = 0; n < 8; ++n, from += step, to += 2 * feed.pitch) copy_async(to, from);
  } else if (feed.each == 4) {
#pragma unroll
    for (std::uint32_t n = 0; n < 4; ++n, from += step, to += 4 * feed.pitch) copy_async(to, from);
  } else if (feed.of < feed.each) {
    for (std::uint32_t r = feed.of; r < 16; r += feed.each, from += step, to += feed.each * feed.pitch) copy_async(to, from);
  }
}

// 16 rows of which some are missing, or of pages that are shorter: one lane finds each.
__device__ inline void copy_scattered(const DenseFeed &feed, const PageTable &table, std::uint32_t token, std::uint32_t end,
                                      std::uint32_t head, std::uint8_t *to) {
  const std::uint32_t own = token + lane_of_warp() % 16;
  const auto address = reinterpret_cast<std::uintptr_t>(row_of_token(*feed.view, table, own < end ? own : end - 1, head).data);
  for (std::uint32_t n = 0; n < 16; n += feed.each) {
    const std::uint32_t row = n + feed.of;
    const std::uintptr_t from = __shfl_sync(kAllLanes, address, row % 16);
    if (feed.of < feed.each && row < 16) copy_async(to + row * feed.pitch + feed.to, reinterpret_cast<const std::uint8_t *>(from) + feed.at);
  }
}

__device__ inline void report_missing(const AttendPlan &plan, const PageTable &table, std::uint32_t token, std::uint32_t end) {
  const std::uint32_t own = token + lane_of_warp() % 16;
  if (table.entries[(own < end ? own : end - 1) >> table.shift] < 0) report(plan.args.call, kFaultTable, plan.head.kv_head);
}

// The rows of stage n on their way into slot `slot`: tokens from first + begin + n * skip on, beyond `end` the last one again.
template <class T>
__device__ inline void fetch_rows(const AttendPlan &plan, const DenseRing &ring, const DenseFeed &feed, std::uint32_t n,
                                  std::uint32_t slot, std::uint32_t first, std::uint32_t end) {
  const CacheArgs &cache = plan.args.cache;
  const std::uint32_t head = plan.head.kv_head, begin = first + feed.begin + n * feed.skip;
  PageTable table{cache.table, cache.page_shift};
  if (table.entries != nullptr) table.entries += std::uint64_t{cache.table_stride} * head;
  for (std::uint32_t r = 0; r < feed.rows && begin + r < end; r += 16) {
    const std::uint32_t token = begin + r;
    std::uint8_t *to = ring.row(slot, r, feed.pitch);
    bool together = token + 16 <= end;
    if (table.entries != nullptr) {
      together = together && 1u << table.shift >= 16 && table.entries[token >> table.shift] >= 0;
      if (!together) report_missing(plan, table, token, end);
    }
    if (together) {
      copy_rows(feed, row_of_token(*feed.view, table, token, head).data, to);
    } else {
      copy_scattered(feed, table, token, end, head, to);
    }
    if (sizeof(T) == 1 && lane_of_warp() < 16) {
      const std::uint32_t own = token + lane_of_warp();
      ring.scale(slot, r + lane_of_warp()) = row_of_token(*feed.view, table, own < end ? own : end - 1, head).scale;
    }
  }
  end_copies();
}

}  // namespace
}  // namespace kvsift

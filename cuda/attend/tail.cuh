// A chunk of pages that stand for what a selection leaves out.
#pragma once

#include "cuda/attend/chunk.cuh"
#include "cuda/attend/values.cuh"

namespace kvsift {
namespace {

__device__ inline void keep_sums(const AttendPlan &plan, const ChunkShared &shared, std::uint32_t g, std::uint32_t slot,
                                 std::uint32_t h) {
  float *sums = plan.sums(plan.place(g, slot));
  sums[0] = shared.max[h];
  sums[1] = shared.sum[h];
}

// Logits of pages [first, first + count), for all query heads, as the scoring left them.
__device__ inline void page_logits(const AttendPlan &plan, const ChunkRows &rows, std::uint32_t first, std::uint32_t count) {
  if (threadIdx.x >= count) return;
  const Scratch scratch = plan.head.scratch();
  const float *from = scratch.spare + first + threadIdx.x;
  float *to = rows.logits + threadIdx.x;
#pragma unroll 4
  for (std::uint32_t g = 0; g < plan.head.settings().group; ++g, from += scratch.stride, to += kChunk) *to = *from;
}

// Pages that hold a kept token of the query head's list stand for nothing.
__device__ inline void hide_pages(const AttendPlan &plan, float *logits, std::uint32_t first, std::uint32_t count) {
  const Settings &s = plan.head.settings();
  const std::uint32_t size = s.c.page_tokens;
  for (std::uint32_t l = 0; l < plan.lists(); ++l) {
    const KeptRanges list = plan.ranges(l);
    for (std::uint32_t r = threadIdx.x; r < list.count; r += kAttendThreads) {
      const std::uint32_t begin = list.ranges[r].begin / size, last = (list.ranges[r].end - 1) / size;
      const std::uint32_t from = begin > first ? begin : first, end = last + 1 < first + count ? last + 1 : first + count;
      for (std::uint32_t page = from; page < end; ++page) {
        for (std::uint32_t g = l; g < l + plan.sharing(); ++g) put_alike(&logits[g * kChunk + page - first], -infinity());
      }
    }
  }
  __syncthreads();
}

// The selection's scoring left tail logits for its own queries: whether these are others.
__device__ inline bool are_others(const AttendPlan &plan, const float *queries) {
  const HeadMarks marks = *plan.head.marks();
  const Settings &s = plan.head.settings();
  const float *then = plan.head.scratch().queries;
  bool differs = marks.tail_layer != plan.head.layer || marks.tail_tokens != plan.step.tokens;
  for (std::uint32_t i = threadIdx.x; i < s.group * s.dim16; i += kAttendThreads) {
    differs = differs || __float_as_uint(queries[i]) != __float_as_uint(then[i]);
  }
  return __syncthreads_or(differs) != 0;
}

// Pages [first, first + count).
struct PageChunk {
  const AttendPlan &plan;
  const ChunkRows &rows;
  std::uint32_t first, count;

  __device__ ValueRows value_rows() const {
    const std::uint32_t dim16 = plan.head.settings().dim16;
    return ValueRows{nullptr, dim16, dim16, count};
  }
};

// Their means on their way into shared memory.
template <class M>
__device__ inline void fetch_means(const PageChunk &pages) {
  const DeviceHead &head = pages.plan.head;
  ChunkShared *shared = pages.rows.shared;
  const std::uint32_t page = pages.first + (threadIdx.x < pages.count ? threadIdx.x : 0);
  if (threadIdx.x < kChunk) {
    const std::uint64_t row = std::uint64_t{page} * head.settings().dim16 * sizeof(M);
    shared->values[threadIdx.x] = head.at<std::uint8_t>(head.image.at.value_mean) + row;
    if constexpr (std::is_same<M, PageCode>::value) {
      shared->value_scales[threadIdx.x] = head.at<float>(head.image.at.value_mean_scale)[page];
    }
  }
  __syncthreads();
  fetch_stage<M>(pages.value_rows(), *shared, 0, pages.rows.stage);
  fetch_stage<M>(pages.value_rows(), *shared, 1, pages.rows.stage);
}

template <class M, int Most, class Slot>
__device__ inline void weigh_means(const PageChunk &pages, Slot slot_of) {
  const AttendPlan &plan = pages.plan;
  const std::uint32_t group = plan.head.settings().group;
  ChunkShared *shared = pages.rows.shared;
  if constexpr (std::is_same<M, PageCode>::value) code_chunk(pages.rows.logits, group, pages.count, shared);
  const auto put = [&](std::uint32_t g, std::uint32_t column, float a, float b) {
    float *to = plan.values(plan.place(g, slot_of(g))) + column;
    to[0] = a;
    to[1] = b;
  };
  weigh_chunk<M, Most>(pages.value_rows(), *shared, pages.rows, group, put);
}

// Chunk `chunk` of the pages, for all query heads; each has its chunks in slots from first_slot(query head) on.
template <int Most, class Slot>
__device__ inline void tail_chunk(const AttendPlan &plan, const ChunkRows &rows, std::uint32_t chunk, Slot first_slot) {
  const std::uint32_t first = chunk * kChunk, left = plan.pages() - first, group = plan.head.settings().group;
  const PageChunk pages{plan, rows, first, left < kChunk ? left : kChunk};
  const bool int8 = plan.head.settings().c.moments_type == KVSIFT_I8;
  const auto slot_of = [&](std::uint32_t g) { return first_slot(g) + chunk; };
  int8 ? fetch_means<PageCode>(pages) : fetch_means<F16>(pages);
  page_logits(plan, rows, first, pages.count);
  __syncthreads();
  hide_pages(plan, rows.logits, first, pages.count);
  soften(rows.logits, group, pages.count, rows.shared);
  if (threadIdx.x < group) keep_sums(plan, *rows.shared, threadIdx.x, slot_of(threadIdx.x), threadIdx.x);
  int8 ? weigh_means<PageCode, Most>(pages, slot_of) : weigh_means<F16, Most>(pages, slot_of);
  __syncthreads();
}

}  // namespace
}  // namespace kvsift

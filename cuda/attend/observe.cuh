// What a chunk's logits say of blocks: the largest logit and the mass of each. Each entry of the observation is written by
// one chunk, and the first block of a chunk, where the chunk before has a part of it, goes to the chunk's carry.
#pragma once

#include "cuda/attend/chunk.cuh"

namespace kvsift {
namespace {

struct BlockShared {
  std::uint32_t first[kChunk + 1];  // of each block that the chunk touches, and the chunk's end
  std::uint32_t count;
};

struct ChunkBlocks {
  const AttendPlan &plan;
  const ChunkShared &chunk;
  const BlockShared &blocks;
  std::uint32_t first_query, heads, slot;
  bool carried;  // its first block

  __device__ std::uint32_t number(std::uint32_t k) const {
    return chunk.tokens[blocks.first[k]] / plan.head.settings().c.block_tokens;
  }
  __device__ float *row(float *rows, std::uint32_t h) const {
    return rows + plan.query_head(first_query + h) * plan.args.block_stride;
  }
};

// Numbers the blocks of the chunk, and gives the entries that belong to it and are not touched their emptiness.
__device__ inline ChunkBlocks begin_blocks(const AttendPlan &plan, const ChunkShared &chunk, std::uint32_t count,
                                           std::uint32_t first_query, std::uint32_t heads, std::uint32_t slot, bool last,
                                           BlockShared *shared) {
  const std::uint32_t size = plan.head.settings().c.block_tokens, i = threadIdx.x;
  const std::uint32_t own = i < count ? chunk.tokens[i] / size : 0;
  const bool begins = i < count && (i == 0 || chunk.tokens[i - 1] / size != own);
  std::uint32_t total;
  const std::uint32_t number = sum_before(begins ? 1 : 0, &total);
  if (begins) shared->first[number] = i;
  if (i == 0) {
    shared->first[total] = count;
    shared->count = total;
  }
  const bool follows = slot > 0;
  const std::uint32_t before = follows ? chunk.before / size : 0;
  const std::uint32_t low = follows ? before + 1 : 0;
  const std::uint32_t high = last ? blocks_of(plan.step.tokens, size) : chunk.tokens[count - 1] / size + 1;
  // A single token has no part in another chunk: its carry names the chunk's first.
  ChunkBlocks work{plan, chunk, *shared, first_query, heads, slot, follows && chunk.tokens[0] / size == before};
  const std::uint32_t joint = work.carried ? before : 0xffffffffu;
  for (std::uint32_t h = 0; h < heads; ++h) {
    for (std::uint32_t b = low + i; b < high; b += kAttendThreads) {
      if (plan.args.block_max != nullptr) work.row(plan.args.block_max, h)[b] = -infinity();
      if (plan.args.block_mass != nullptr) work.row(plan.args.block_mass, h)[b] = size == 1 ? 0.0f : -infinity();
    }
    if (i == 0) plan.carry(plan.place(first_query + h, slot))->block = size == 1 ? chunk.tokens[0] : joint;
  }
  __syncthreads();
  return work;
}

__device__ inline void put_maxima(const ChunkBlocks &work, const float *logits) {
  if (work.plan.args.block_max == nullptr) return;
  for (std::uint32_t i = threadIdx.x; i < work.blocks.count * work.heads; i += kAttendThreads) {
    const std::uint32_t k = i % work.blocks.count, h = i / work.blocks.count;
    const float *row = logits + h * kChunk;
    float max = -infinity();
    for (std::uint32_t t = work.blocks.first[k]; t < work.blocks.first[k + 1]; ++t) max = row[t] > max ? row[t] : max;
    if (k == 0 && work.carried) {
      work.plan.carry(work.plan.place(work.first_query + h, work.slot))->max = max;
    } else {
      work.row(work.plan.args.block_max, h)[work.number(k)] = max;
    }
  }
}

// Sum of a run of neighbours, kStride floats apart: lane i adds elements i, i + 16 ..., then the tree.
template <std::uint32_t kStride>
__device__ inline float run_sum(const float *row, std::uint32_t count) {
  if (count == 1) return row[0];
  float lane[16];
#pragma unroll
  for (std::uint32_t l = 0; l < 16; ++l) {
    lane[l] = 0.0f;
    for (std::uint32_t i = l; i < count; i += 16) lane[l] = lane[l] + row[i * kStride];
  }
  return tree16(lane);
}

// `weights` are softened.
__device__ inline void put_masses(const ChunkBlocks &work, const float *weights) {
  if (work.plan.args.block_mass == nullptr) return;
  for (std::uint32_t i = threadIdx.x; i < work.blocks.count * work.heads; i += kAttendThreads) {
    const std::uint32_t k = i % work.blocks.count, h = i / work.blocks.count;
    const std::uint32_t end = work.blocks.first[k + 1];
    float sum = 0.0f;
    for (std::uint32_t t = work.blocks.first[k]; t < end;) {
      std::uint32_t run = 1;
      while (t + run < end && work.chunk.tokens[t + run] == work.chunk.tokens[t] + run) ++run;
      sum = sum + run_sum<1>(weights + h * kChunk + t, run);
      t += run;
    }
    const float share = work.plan.keeps_weights() ? sum : work.chunk.max[h] + log1(sum);
    if (k == 0 && work.carried) {
      work.plan.carry(work.plan.place(work.first_query + h, work.slot))->log_mass = share;
    } else {
      work.row(work.plan.args.block_mass, h)[work.number(k)] = share;
    }
  }
}

}  // namespace
}  // namespace kvsift

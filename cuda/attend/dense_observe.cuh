// What a warp's chunk says of blocks, as observe.cuh for chunks of neighbouring tokens: each block is one run.
#pragma once

#include "cuda/attend/dense.cuh"
#include "cuda/attend/observe.cuh"

namespace kvsift {
namespace {

template <int Tiles>
struct DenseBlocks {
  const DenseChunk<Tiles> &chunk;
  std::uint32_t size;     // tokens a block
  std::uint32_t low, count;  // blocks that the chunk touches
  bool carried;           // the first of them began in the chunk before

  __device__ explicit DenseBlocks(const DenseChunk<Tiles> &c)
      : chunk(c), size(c.plan.head.settings().c.block_tokens), low(c.first / size),
        count((c.first + c.count - 1) / size + 1 - low), carried(c.first % size != 0) {}

  // Tokens [begin, end) of block k, counted from the chunk's first.
  __device__ std::uint32_t begin(std::uint32_t k) const { return k == 0 ? 0 : (low + k) * size - chunk.first; }
  __device__ std::uint32_t end(std::uint32_t k) const { return k + 1 == count ? chunk.count : begin(k + 1); }
  __device__ const float *logits(std::uint32_t h) const {
    return reinterpret_cast<const float *>(chunk.logits + h / 4 * kChunk) + h % 4;
  }
  __device__ Carry *carry(std::uint32_t h) const { return chunk.plan.carry(chunk.plan.place(h, chunk.slot)); }
  __device__ float *row(float *rows, std::uint32_t h) const {
    return rows + chunk.plan.query_head(h) * chunk.plan.args.block_stride;
  }
};

// Logits are still logits.
template <int Tiles>
__device__ inline void put_maxima(const DenseBlocks<Tiles> &blocks) {
  const std::uint32_t heads = blocks.chunk.heads(), own = lane_of_warp();
  if (own < heads) blocks.carry(own)->block = blocks.carried || blocks.size == 1 ? blocks.low : 0xffffffffu;
  if (blocks.chunk.plan.args.block_max == nullptr) return __syncwarp();
  for (std::uint32_t n = lane_of_warp(); n < blocks.count * heads; n += kWarpThreads) {
    const std::uint32_t k = n % blocks.count, h = n / blocks.count;
    const float *logits = blocks.logits(h);
    float max = -infinity();
    for (std::uint32_t t = blocks.begin(k); t < blocks.end(k); ++t) max = logits[4 * t] > max ? logits[4 * t] : max;
    if (k == 0 && blocks.carried) {
      blocks.carry(h)->max = max;
    } else {
      blocks.row(blocks.chunk.plan.args.block_max, h)[blocks.low + k] = max;
    }
  }
  __syncwarp();
}

// Logits are weights by now.
template <int Tiles>
__device__ inline void put_masses(const DenseBlocks<Tiles> &blocks) {
  const AttendPlan &plan = blocks.chunk.plan;
  if (plan.args.block_mass == nullptr) return;
  const std::uint32_t heads = blocks.chunk.heads();
  for (std::uint32_t n = lane_of_warp(); n < blocks.count * heads; n += kWarpThreads) {
    const std::uint32_t k = n % blocks.count, h = n / blocks.count;
    const float sum = run_sum<4>(blocks.logits(h) + 4 * blocks.begin(k), blocks.end(k) - blocks.begin(k));
    float max = blocks.chunk.max[0][0];
#pragma unroll
    for (int i = 1; i < 4 * Tiles; ++i) max = h == static_cast<std::uint32_t>(i) ? blocks.chunk.max[i / 4][i % 4] : max;
    const float share = plan.keeps_weights() ? sum : max + log1(sum);
    if (k == 0 && blocks.carried) {
      blocks.carry(h)->log_mass = share;
    } else {
      blocks.row(plan.args.block_mass, h)[blocks.low + k] = share;
    }
  }
  __syncwarp();
}

}  // namespace
}  // namespace kvsift

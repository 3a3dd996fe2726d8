#include "attend/observe.h"

namespace kvsift {

namespace {

void fill(float *x, std::uint32_t n, float value) {
  for (std::uint32_t i = 0; i < n; ++i) x[i] = value;
}

}  // namespace

BlockObserver::BlockObserver(const Head &head, const Attended &result)
    : head_(head), result_(result) {
  const float least = -__builtin_inff();
  for (std::uint32_t g = 0; g < head.group; ++g) {
    if (result.block_max != nullptr)
      fill(result.block_max + g * result.block_stride, result.blocks, least);
    if (result.block_mass != nullptr)
      fill(result.block_mass + g * result.block_stride, result.blocks, least);
  }
}

void BlockObserver::logits(const Chunk &chunk, ChunkWork *work) {
  if (result_.block_max == nullptr) return;
  for (std::uint32_t g = 0; g < head_.group; ++g) {
    const float *row = work->row(g);
    float *out = result_.block_max + g * result_.block_stride;
    for (std::uint32_t r = 0; r < chunk.runs; ++r) {
      const Run run = chunk.run[r];
      head_.kernels->attention.block_max(row, run.first, run.count, result_.block_tokens,
                                         out + run.first / result_.block_tokens);
      row += run.count;
    }
  }
}

std::uint32_t BlockObserver::number_blocks(const Chunk &chunk) {
  std::uint32_t count = 0;
  for (std::uint32_t r = 0; r < chunk.runs; ++r) {
    std::uint32_t block = chunk.run[r].first / result_.block_tokens;
    const std::uint32_t last = (chunk.run[r].first + chunk.run[r].count - 1) / result_.block_tokens;
    const bool shared = count > 0 && blocks_[count - 1] == block;
    first_[r] = shared ? count - 1 : count;
    if (shared) ++block;
    for (; block <= last; ++block) blocks_[count++] = block;
  }
  return count;
}

void BlockObserver::weights(const Chunk &chunk, ChunkWork *work) {
  if (result_.block_mass == nullptr) return;
  const std::uint32_t count = number_blocks(chunk);
  for (std::uint32_t g = 0; g < head_.group; ++g) {
    const float *row = work->row(g);
    fill(sums_, count, 0.0f);
    for (std::uint32_t r = 0; r < chunk.runs; ++r) {
      head_.kernels->attention.block_sum(row, chunk.run[r].first, chunk.run[r].count,
                                         result_.block_tokens, sums_ + first_[r]);
      row += chunk.run[r].count;
    }
    head_.kernels->array.log(sums_, sums_, count);
    float *mass = result_.block_mass + g * result_.block_stride;
    for (std::uint32_t b = 0; b < count; ++b) {
      const float share = work->max[g] + sums_[b];
      float *own = mass + blocks_[b];
      // Only a chunk's first block can have a part in the chunk before.
      *own = *own > -__builtin_inff() ? log_add(*own, share) : share;
    }
  }
}

void finish_masses(const Head &head, const Attended &result, const float *log_sums) {
  if (result.block_mass == nullptr) return;
  for (std::uint32_t g = 0; g < head.group; ++g) {
    float *mass = result.block_mass + g * result.block_stride;
    if (!(log_sums[g] > -__builtin_inff())) {
      fill(mass, result.blocks, 0.0f);
      continue;
    }
    for (std::uint32_t b = 0; b < result.blocks; ++b) mass[b] -= log_sums[g];
    head.kernels->array.exp(mass, mass, result.blocks);
  }
}

}  // namespace kvsift

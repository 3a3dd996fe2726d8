#include "attend/observe.h"

#include "attend/running.h"

namespace kvsift {

namespace {

void fill(float *x, std::uint32_t n, float value) {
  for (std::uint32_t i = 0; i < n; ++i) x[i] = value;
}

// The blocks that a chunk touches, ascending, and the number of each run's first among them.
struct Touched {
  std::uint32_t blocks[kChunk], first[kChunk];
  std::uint32_t count = 0;

  Touched(const Chunk &chunk, std::uint32_t block_tokens) {
    for (std::uint32_t r = 0; r < chunk.runs; ++r) {
      std::uint32_t block = chunk.run[r].first / block_tokens;
      const std::uint32_t last = (chunk.run[r].first + chunk.run[r].count - 1) / block_tokens;
      const bool shared = count > 0 && blocks[count - 1] == block;
      first[r] = shared ? count - 1 : count;
      if (shared) ++block;
      for (; block <= last; ++block) blocks[count++] = block;
    }
  }
};

}  // namespace

void begin_observation(const Head &head, const Attended &result) {
  const float least = -__builtin_inff();
  for (std::uint32_t g = 0; g < head.group; ++g) {
    if (result.block_max != nullptr)
      fill(result.block_max + g * result.block_stride, result.blocks, least);
    if (result.block_mass != nullptr && result.block_tokens > 1)
      fill(result.block_mass + g * result.block_stride, result.blocks, least);
  }
}

void observe_logits(const Head &head, const Attended &result, const Chunk &chunk,
                    const float *rows) {
  if (result.block_max == nullptr) return;
  for (std::uint32_t g = 0; g < head.group; ++g) {
    const float *row = rows + g * kChunk;
    float *out = result.block_max + g * result.block_stride;
    for (std::uint32_t r = 0; r < chunk.runs; ++r) {
      const Run run = chunk.run[r];
      head.kernels->attention.block_max(row, run.first, run.count, result.block_tokens,
                                        out + run.first / result.block_tokens);
      row += run.count;
    }
  }
}

void observe_weights(const Head &head, const Attended &result, const Chunk &chunk,
                     const float *rows, const float *max) {
  if (result.block_mass == nullptr || result.block_tokens == 1) return;
  const Touched touched(chunk, result.block_tokens);
  float sums[kChunk];
  for (std::uint32_t g = 0; g < head.group; ++g) {
    const float *row = rows + g * kChunk;
    fill(sums, touched.count, 0.0f);
    for (std::uint32_t r = 0; r < chunk.runs; ++r) {
      head.kernels->attention.block_sum(row, chunk.run[r].first, chunk.run[r].count,
                                        result.block_tokens, sums + touched.first[r]);
      row += chunk.run[r].count;
    }
    head.kernels->array.log(sums, sums, touched.count);
    float *mass = result.block_mass + g * result.block_stride;
    // Only a chunk's first block can have a part in the chunk before.
    const float part = mass[touched.blocks[0]];
    for (std::uint32_t b = 0; b < touched.count; ++b) mass[touched.blocks[b]] = max[g] + sums[b];
    if (part > -__builtin_inff())
      mass[touched.blocks[0]] = log_add(part, mass[touched.blocks[0]]);
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
    // Where each token is a block, its largest logit says it all.
    const float *logs = result.block_tokens == 1 ? result.block_max + g * result.block_stride : mass;
    head.kernels->array.shift(logs, -log_sums[g], mass, result.blocks);
    head.kernels->array.exp(mass, mass, result.blocks);
  }
}

}  // namespace kvsift

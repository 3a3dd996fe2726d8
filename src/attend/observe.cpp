#include "attend/observe.h"

#include "attend/running.h"
#include "attend/shares.h"

namespace kvsift {

namespace {

void fill(float *x, std::uint32_t n, float value) {
  for (std::uint32_t i = 0; i < n; ++i) x[i] = value;
}

// Blocks that a chunk touches, one after the other: how many, and the number of each run's first.
struct Touched {
  std::uint32_t first[kChunk];
  std::uint32_t count = 0;

  Touched(const Chunk &chunk, std::uint32_t block_tokens) {
    std::uint32_t end = 0;  // the block behind the last
    for (std::uint32_t r = 0; r < chunk.runs; ++r) {
      const Run run = chunk.run[r];
      const std::uint32_t block = run.first / block_tokens;
      first[r] = block < end ? count - 1 : count;
      end = (run.first + run.count - 1) / block_tokens + 1;
      count = first[r] + end - block;
    }
  }
};

// Sums of a chunk's weights, [group][count], in logarithms.
void log_sums(const Head &head, const Chunk &chunk, const Touched &touched,
              std::uint32_t block_tokens, const float *rows, float *sums) {
  fill(sums, head.group * touched.count, 0.0f);
  for (std::uint32_t g = 0; g < head.group; ++g) {
    const float *row = rows + g * kChunk;
    float *own = sums + g * touched.count;
    for (std::uint32_t r = 0; r < chunk.runs; ++r) {
      head.kernels->attention.block_sum(row, chunk.run[r].first, chunk.run[r].count, block_tokens,
                                        own + touched.first[r]);
      row += chunk.run[r].count;
    }
  }
  head.kernels->array.log(sums, sums, head.group * touched.count);
}

}  // namespace

void begin_observation(const Head &head, const Attended &result, const List &list) {
  const float least = -__builtin_inff();
  for (std::uint32_t g = 0; g < head.group && result.block_max != nullptr; ++g)
    fill(result.block_max + g * result.block_stride, result.blocks, least);
  if (wants_shares(result)) return begin_shares(head, result, list);
  for (std::uint32_t g = 0; g < head.group && result.block_mass != nullptr; ++g)
    fill(result.block_mass + g * result.block_stride, result.blocks, least);
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
                     std::uint32_t number, const float *rows, const float *max) {
  if (wants_shares(result)) return keep_weights(head, result, chunk, number, rows, max);
  if (result.block_mass == nullptr) return;
  const std::uint32_t size = result.block_tokens;
  const Touched touched(chunk, size);
  float sums[KVSIFT_MAX_GROUP * kChunk];
  log_sums(head, chunk, touched, size, rows, sums);
  for (std::uint32_t g = 0; g < head.group; ++g) {
    const float *own = sums + g * touched.count;
    float *mass = result.block_mass + g * result.block_stride;
    // Only a chunk's first block can have a part in the chunk before.
    float *joint = mass + chunk.run[0].first / size;
    const float part = *joint;
    for (std::uint32_t r = 0; r < chunk.runs; ++r) {
      const Run run = chunk.run[r];
      const std::uint32_t block = run.first / size, end = (run.first + run.count - 1) / size + 1;
      for (std::uint32_t b = 0; b < end - block; ++b)
        mass[block + b] = max[g] + own[touched.first[r] + b];
    }
    if (part > -__builtin_inff()) *joint = log_add(part, *joint);
  }
}

void finish_masses(const Head &head, const Attended &result, const List &list,
                   const float *log_sums) {
  if (wants_shares(result)) return finish_shares(head, result, list, log_sums);
  if (result.block_mass == nullptr) return;
  for (std::uint32_t g = 0; g < head.group; ++g) {
    float *mass = result.block_mass + g * result.block_stride;
    if (log_sums[g] > -__builtin_inff()) {
      head.kernels->array.exp(mass, log_sums[g], mass, result.blocks);
    } else {
      fill(mass, result.blocks, 0.0f);
    }
  }
}

}  // namespace kvsift

// Softmax over chunks: what one chunk gives, and what the chunks before it gave.
#pragma once

#include <cstddef>
#include <cstdint>

#include "attend/attend.h"
#include "attend/chunk.h"

namespace kvsift {

constexpr std::uint32_t kHeads = 8;  // query heads worked on at a time

// Maximum, sum of exp(logit - max), and values so weighted.
struct ChunkWork {
  float logits[kHeads * kChunk];  // [g][kChunk]; soften makes them exp(logit - max)
  float max[kHeads], sum[kHeads];
  float acc[kHeads * KVSIFT_MAX_HEAD_DIM];

  float *row(std::uint32_t g) { return logits + g * kChunk; }
  // Logits of the chunk's tokens; their values are asked for on the way.
  void dot(const Head &head, const Chunk &chunk);
  void soften(const Head &head, std::uint32_t count);
  // Weighted values of the chunk's tokens; the keys of `next`, which may be empty, are asked for on
  // the way.
  void weigh(const Head &head, const Chunk &chunk, const Chunk &next);
  void clear_values(const Head &head);
};

// acc (dim elements) joined by chunk_acc, each relative to its maximum.
void merge_chunk(const Kernels &kernels, std::uint32_t dim, float *max, float *sum, float *acc,
                 float chunk_max, float chunk_sum, const float *chunk_acc);

float log_sum_exp(float max, float sum);

// log(e^a + e^b)
float log_add(float a, float b);

struct Running {
  float max[kHeads], sum[kHeads];
  float acc[kHeads * KVSIFT_MAX_HEAD_DIM];

  void start(const Head &head);
  void merge(const Head &head, const ChunkWork &work, bool values);
  // out: [group][dim], or null.
  void finish(const Head &head, float *out, float *log_sums) const;
};

}  // namespace kvsift

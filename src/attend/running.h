// Softmax over chunks: what one chunk gives, and what the chunks before it gave.
#pragma once

#include <cstddef>
#include <cstdint>

#include "attend/attend.h"
#include "attend/listed.h"

namespace kvsift {

// Rows that the passes after this one read, asked for on the way, one for each row worked on; chunks
// may be empty.
struct Coming {
  const HeadRows &rows;
  const Chunk &chunk;
  std::uint32_t asked = 0;  // of the chunk's rows, before
  const HeadRows *then_rows = nullptr;  // what follows when the chunk is through
  const Chunk *then_chunk = nullptr;
};

// Asks for a chunk that no pass before it could.
void ask_for_chunk(const HeadRows &rows, std::uint32_t dim, const Chunk &chunk);

// Maximum, sum of exp(logit - max), and values so weighted.
struct ChunkWork {
  float own[kHeads * kChunk];
  float *logits = own;  // [g][kChunk], there or where the weights are to stay; soften makes them exp(logit - max)
  float max[kHeads], sum[kHeads];
  float acc[kHeads * KVSIFT_MAX_HEAD_DIM];

  float *row(std::uint32_t g) { return logits + g * kChunk; }
  // Before passes of which each takes what came with the one before.
  void begin() { listed = false; }
  // Logits of the chunk's tokens.
  void dot(const Head &head, const Chunk &chunk, const Coming &coming);
  void soften(const Head &head, std::uint32_t count);
  // Weighted values of the chunk's tokens.
  void weigh(const Head &head, const Chunk &chunk, const Coming &coming);
  void clear_values(const Head &head);

 private:
  // The lists of this pass and the next.
  const ListedRows &listed_now(const HeadRows &rows, const Chunk &chunk);
  Ahead list_coming(const Coming &coming, std::uint32_t dim);

  ListedRows lists[2];
  std::uint32_t now = 0;
  bool listed = false;  // whether lists[now] is there
};

// rows ([group][kChunk]) become exp(logit - max).
void soften_rows(const Kernels &kernels, float *rows, std::uint32_t group, std::uint32_t count,
                 float *max, float *sum);

// Sums of `count` rows so far, at most kRows, and of a chunk of them, each relative to its maximum.
constexpr std::uint32_t kRows = 32;
struct RowSums {
  float *max, *sum;
  const float *chunk_max, *chunk_sum;
  std::uint32_t count;
};

// factors: [2 * count], what the sums so far and those of the chunk are to be multiplied with.
void join_sums(const Kernels &kernels, const RowSums &sums, float *factors);

// The chunk's sums join the others, and so do its values: acc_of(row) by chunk_acc_of(row), `dim`
// elements each; null: none. Nothing changes where a chunk's sum is 0.
template <class Acc, class ChunkAcc>
void merge_chunk(const Kernels &kernels, const RowSums &sums, std::uint32_t dim, Acc acc_of,
                 ChunkAcc chunk_acc_of) {
  float own[2 * kRows], *coming = own + sums.count;
  join_sums(kernels, sums, own);
  for (std::uint32_t row = 0; row < sums.count; ++row) {
    float *acc = acc_of(row);
    if (acc == nullptr || sums.chunk_sum[row] == 0.0f) continue;
    kernels.array.axpby(own[row], acc, coming[row], chunk_acc_of(row), dim);
  }
}

float log_sum_exp(float max, float sum);

// log(e^a + e^b)
float log_add(float a, float b);

struct Running {
  float max[kHeads], sum[kHeads];
  float acc[kHeads * KVSIFT_MAX_HEAD_DIM];

  void start(const Head &head);
  // The query heads of `head` are those from `first` on here.
  void merge(const Head &head, const ChunkWork &work, bool values, std::uint32_t first = 0);
  // out: [group][dim], or null.
  void finish(const Head &head, float *out, float *log_sums) const;
};

}  // namespace kvsift

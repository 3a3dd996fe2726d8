#include "attend/running.h"

#include <cstring>

#include "kernels/load_part.h"
#include "kernels/one.h"

namespace kvsift {

namespace {

// Hands out the rows that come next, as many as were worked on.
class ComingWalk {
 public:
  ComingWalk(const Coming &coming, std::uint32_t dim)
      : rows_(&coming.rows), chunk_(&coming.chunk), then_(coming), dim_(dim), left_(chunk_->size) {
    for (std::uint32_t skipped = coming.asked, n; skipped > 0 && left_ > 0; skipped -= n) {
      n = skipped;
      stretch(&n);
    }
    go_on();
  }

  // How many rows are best taken at a time: what is asked for at once is too much where it is more
  // than a few.
  std::uint32_t piece() const {
    if (left_ == 0) return kChunk;
    const std::uint32_t n = chunk_->run[run_].count - done_, few = n < kFew ? kFew : n;
    return few < left_ ? few : left_;
  }

  // `count` rows, or what is left of them: the first that lie at one stride, to be asked for on the
  // way; the others are asked for at once.
  Ahead take(std::uint32_t count) {
    std::uint32_t n = count;
    const Ahead first = stretch(&n);
    for (std::uint32_t taken = n; taken < count && left_ > 0; taken += n) {
      n = count - taken;
      const Ahead more = stretch(&n);
      for (std::uint32_t i = 0; i < n; ++i) ask_for(more, i);
    }
    go_on();
    return first;
  }

 private:
  // At most *count rows; *count becomes how many they are.
  Ahead stretch(std::uint32_t *count) {
    if (left_ == 0) *count = 0;
    if (left_ == 0) return Ahead{};
    const Run run = chunk_->run[run_];
    if (*count > run.count - done_) *count = run.count - done_;
    const Rows rows = rows_->stretch(run.first + done_, count);
    done_ += *count;
    left_ -= *count;
    if (done_ == run.count) {
      ++run_;
      done_ = 0;
    }
    return Ahead{rows, *count, dim_ * element_bytes(rows.type)};
  }

  void go_on() {
    if (left_ > 0 || then_.then_chunk == nullptr) return;
    rows_ = then_.then_rows;
    chunk_ = then_.then_chunk;
    then_.then_chunk = nullptr;
    left_ = chunk_->size;
    run_ = done_ = 0;
  }

  static constexpr std::uint32_t kFew = 16;

  const HeadRows *rows_;
  const Chunk *chunk_;
  Coming then_;
  std::uint32_t dim_, left_, run_ = 0, done_ = 0;
};

}  // namespace

void ask_for_chunk(const HeadRows &rows, std::uint32_t dim, const Chunk &chunk) {
  const Coming coming{rows, chunk};
  ComingWalk walk(coming, dim);
  const Ahead first = walk.take(chunk.size);
  for (std::uint32_t i = 0; i < first.count; ++i) ask_for(first, i);
}

const ListedRows &ChunkWork::listed_now(const HeadRows &rows, const Chunk &chunk) {
  if (!listed) lists[now].list(rows, chunk);
  return lists[now];
}

Ahead ChunkWork::list_coming(const Coming &coming, std::uint32_t dim) {
  if (coming.chunk.size == 0) {
    listed = false;
    return Ahead{};
  }
  ListedRows *next = &lists[now ^= 1];
  next->list(coming.rows, coming.chunk);
  listed = true;
  const Rows rows = next->rows(coming.rows);
  return Ahead{rows, next->count, dim * element_bytes(rows.type)};
}

void ChunkWork::dot(const Head &head, const Chunk &chunk, const Coming &coming) {
  const AttentionKernels &k = head.kernels->attention;
  if (better_listed(head.keys, chunk, head.group)) {
    const Rows rows = listed_now(head.keys, chunk).rows(head.keys);
    k.dot_rows_ahead(head.queries, head.group, rows, chunk.size, head.dim, head.scale, logits, kChunk,
                     list_coming(coming, head.dim));
    return;
  }
  listed = false;
  float *out = logits;
  ComingWalk walk(coming, head.dim);
  for (std::uint32_t r = 0; r < chunk.runs; ++r) {
    const Run run = chunk.run[r];
    for (std::uint32_t done = 0, n; done < run.count; done += n, out += n) {
      n = run.count - done < walk.piece() ? run.count - done : walk.piece();
      const Rows rows = head.keys.stretch(run.first + done, &n);
      k.dot_rows_ahead(head.queries, head.group, rows, n, head.dim, head.scale, out, kChunk, walk.take(n));
    }
  }
}

void ChunkWork::weigh(const Head &head, const Chunk &chunk, const Coming &coming) {
  const AttentionKernels &k = head.kernels->attention;
  clear_values(head);
  if (better_listed(head.values, chunk, head.group)) {
    const Rows rows = listed_now(head.values, chunk).rows(head.values);
    k.weighted_sum_ahead(logits, kChunk, head.group, rows, chunk.size, head.dim, acc, list_coming(coming, head.dim));
    return;
  }
  listed = false;
  const float *weights = logits;
  ComingWalk walk(coming, head.dim);
  for (std::uint32_t r = 0; r < chunk.runs; ++r) {
    const Run run = chunk.run[r];
    for (std::uint32_t done = 0, n; done < run.count; done += n, weights += n) {
      n = run.count - done < walk.piece() ? run.count - done : walk.piece();
      const Rows rows = head.values.stretch(run.first + done, &n);
      k.weighted_sum_ahead(weights, kChunk, head.group, rows, n, head.dim, acc, walk.take(n));
    }
  }
}

void soften_rows(const Kernels &kernels, float *rows, std::uint32_t group, std::uint32_t count,
                 float *max, float *sum) {
  for (std::uint32_t g = 0; g < group; ++g) {
    max[g] = kernels.array.max(rows + g * kChunk, count);
    sum[g] = kernels.attention.softmax(rows + g * kChunk, count, max[g]);
  }
}

void ChunkWork::soften(const Head &head, std::uint32_t count) {
  soften_rows(*head.kernels, logits, head.group, count, max, sum);
}

void ChunkWork::clear_values(const Head &head) {
  std::memset(acc, 0, sizeof(float) * head.group * padded_dim(head.dim));
}

void join_sums(const Kernels &kernels, const RowSums &sums, float *factors) {
  float *own = factors, *coming = factors + sums.count;
  float larger[kRows];
  for (std::uint32_t i = 0; i < sums.count; ++i) {
    const bool empty = sums.chunk_sum[i] == 0.0f;
    larger[i] = empty || sums.max[i] > sums.chunk_max[i] ? sums.max[i] : sums.chunk_max[i];
    own[i] = empty ? 0.0f : sums.max[i] - larger[i];
    coming[i] = empty ? -__builtin_inff() : sums.chunk_max[i] - larger[i];
  }
  kernels.array.exp(factors, 0.0f, factors, 2 * sums.count);
  for (std::uint32_t i = 0; i < sums.count; ++i) {
    sums.sum[i] = __builtin_fmaf(own[i], sums.sum[i], coming[i] * sums.chunk_sum[i]);
    sums.max[i] = larger[i];
  }
}

float log_sum_exp(float max, float sum) { return sum > 0.0f ? max + log1(sum) : -__builtin_inff(); }

float log_add(float a, float b) {
  const float larger = a > b ? a : b;
  return larger + log1(exp1(a - larger) + exp1(b - larger));
}

void Running::start(const Head &head) {
  for (std::uint32_t g = 0; g < head.group; ++g) {
    max[g] = -__builtin_inff();
    sum[g] = 0.0f;
  }
  std::memset(acc, 0, sizeof(float) * head.group * padded_dim(head.dim));
}

void Running::merge(const Head &head, const ChunkWork &work, bool values, std::uint32_t first) {
  const std::uint32_t dim16 = padded_dim(head.dim);
  merge_chunk(*head.kernels, RowSums{max + first, sum + first, work.max, work.sum, head.group}, dim16,
              [&](std::uint32_t g) { return values ? acc + (first + g) * dim16 : nullptr; },
              [&](std::uint32_t g) { return work.acc + g * dim16; });
}

void Running::finish(const Head &head, float *out, float *log_sums) const {
  const std::uint32_t dim16 = padded_dim(head.dim);
  for (std::uint32_t g = 0; g < head.group; ++g) {
    if (log_sums != nullptr) log_sums[g] = log_sum_exp(max[g], sum[g]);
    if (out == nullptr) continue;
    const float inverse = sum[g] > 0.0f ? 1.0f / sum[g] : 0.0f;
    for (std::uint32_t c = 0; c < head.dim; ++c)
      out[g * head.dim + c] = acc[g * dim16 + c] * inverse;
  }
}

}  // namespace kvsift

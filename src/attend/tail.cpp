#include "attend/tail.h"

#include <cstring>

#include "kernels/one.h"

namespace kvsift {

namespace {

// Walks the coreset's tokens that are not kept; `weights` gets those of the chunk.
class CoresetWalk {
 public:
  CoresetWalk(const kvsift_range *ranges, std::uint32_t count, const Tail &tail)
      : range_(ranges), end_(ranges + count), tail_(tail) {}

  bool next(Chunk *chunk, float *weights) {
    chunk->size = chunk->runs = 0;
    for (; at_ < tail_.coreset_count && !chunk->full(); ++at_) {
      const std::uint32_t token = tail_.coreset[at_];
      while (range_ != end_ && range_->end <= token) ++range_;
      const bool kept = range_ != end_ && range_->begin <= token;
      if (kept || !(tail_.weights[at_] > 0.0f)) continue;
      weights[chunk->size] = tail_.weights[at_];
      chunk->take(token, 1);
    }
    return chunk->size > 0;
  }

 private:
  const kvsift_range *range_, *end_;
  const Tail &tail_;
  std::uint32_t at_ = 0;
};

void add_coreset(const Head &head, const kvsift_range *ranges, std::uint32_t count,
                 const Tail &tail, ChunkWork *work, Running *running) {
  Chunk chunk;
  const Chunk none{};
  float weights[kChunk];
  CoresetWalk walk(ranges, count, tail);
  while (walk.next(&chunk, weights)) {
    work->dot(head, chunk);
    head.kernels->array.log(weights, weights, chunk.size);
    for (std::uint32_t g = 0; g < head.group; ++g)
      head.kernels->array.axpby(1.0f, work->row(g), 1.0f, weights, chunk.size);
    work->soften(head, chunk.size);
    work->weigh(head, chunk, none);
    running->merge(head, *work, true);
  }
}

void page_logits(const Head &head, const Tail &tail, const Run &run, float *out) {
  if (tail.page_logits == nullptr) {
    moment_logits(*head.kernels, head.queries, head.group, head.scale, *tail.moments, run.first,
                  run.count, out, nullptr, kChunk);
    return;
  }
  for (std::uint32_t g = 0; g < head.group; ++g)
    std::memcpy(out + g * kChunk, tail.page_logits + g * tail.page_stride + run.first,
                sizeof(float) * run.count);
}

void add_moments(const Head &head, const kvsift_range *ranges, std::uint32_t count,
                 const Tail &tail, ChunkWork *work, Running *running) {
  const Moments &moments = *tail.moments;
  const std::uint32_t pages = (moments.tokens + moments.page_tokens - 1) / moments.page_tokens;
  Chunk chunk;
  LeftOutWalk walk(ranges, count, moments.page_tokens, pages);
  while (walk.next(&chunk)) {
    std::uint32_t at = 0;
    for (std::uint32_t r = 0; r < chunk.runs; at += chunk.run[r++].count)
      page_logits(head, tail, chunk.run[r], work->logits + at);
    work->soften(head, chunk.size);
    work->clear_values(head);
    at = 0;
    for (std::uint32_t r = 0; r < chunk.runs; at += chunk.run[r++].count) {
      const Rows rows =
          moment_rows(moments, moments.value, moments.value_scale, chunk.run[r].first);
      head.kernels->attention.weighted_sum(work->logits + at, kChunk, head.group, rows,
                                           chunk.run[r].count, head.dim, work->acc);
    }
    running->merge(head, *work, true);
  }
}

}  // namespace

void add_tail(const Head &head, const kvsift_range *ranges, std::uint32_t count, const Tail &tail,
              ChunkWork *work, Running *running) {
  if (tail.kind == KVSIFT_TAIL_MOMENTS) add_moments(head, ranges, count, tail, work, running);
  if (tail.kind == KVSIFT_TAIL_BALANCE) add_coreset(head, ranges, count, tail, work, running);
}

}  // namespace kvsift

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

// For the query heads from `first` on of `running`, which share a list.
void add_coreset(const Head &head, const List &list, const Tail &tail, std::uint32_t first,
                 ChunkWork *work, Running *running) {
  Chunk chunks[2];
  float weights[2][kChunk];
  CoresetWalk walk(list.ranges, list.count, tail);
  work->begin();
  walk.next(&chunks[0], weights[0]);
  ask_for_chunk(head.keys, head.dim, chunks[0]);
  for (std::uint32_t c = 0; chunks[c].size > 0; c ^= 1) {
    const Chunk &chunk = chunks[c];
    walk.next(&chunks[c ^ 1], weights[c ^ 1]);
    work->dot(head, chunk, Coming{head.values, chunk});
    head.kernels->array.log(weights[c], weights[c], chunk.size);
    for (std::uint32_t g = 0; g < head.group; ++g)
      head.kernels->array.axpby(1.0f, work->row(g), 1.0f, weights[c], chunk.size);
    work->soften(head, chunk.size);
    work->weigh(head, chunk, Coming{head.keys, chunks[c ^ 1]});
    running->merge(head, *work, true, first);
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

// As ChunkWork::soften, where all of a row may be hidden.
void soften_shown(const Head &head, std::uint32_t count, ChunkWork *work) {
  for (std::uint32_t g = 0; g < head.group; ++g) {
    float *row = work->row(g);
    work->sum[g] = 0.0f;
    work->max[g] = head.kernels->array.max(row, count);
    if (work->max[g] > -__builtin_inff() || work->max[g] != work->max[g]) {
      work->sum[g] = head.kernels->attention.softmax(row, count, work->max[g]);
    } else {
      std::memset(row, 0, sizeof(float) * count);
    }
  }
}

constexpr std::uint32_t kRowsAhead = 32;

void weigh_pages(const Head &head, const Moments &moments, const Run &run, std::uint32_t pages,
                 ChunkWork *work) {
  const std::uint32_t coming = run.first + kRowsAhead;
  Ahead ahead{};
  if (coming < pages) {
    const Rows rows = moment_rows(moments, moments.value, moments.value_scale, coming);
    ahead = Ahead{rows, pages - coming, static_cast<std::uint32_t>(rows.stride)};
  }
  const Rows rows = moment_rows(moments, moments.value, moments.value_scale, run.first);
  if (moments.type == KVSIFT_I8) {
    static_assert(kChunk <= kCodedRows, "a chunk's sums");
    head.kernels->page.coded_values(work->logits, kChunk, head.group, rows, run.count, head.dim, work->acc, ahead);
    return;
  }
  work->clear_values(head);
  head.kernels->attention.weighted_sum_ahead(work->logits, kChunk, head.group, rows, run.count, head.dim, work->acc, ahead);
}

void add_moments(const Head &head, const Lists &lists, const Tail &tail, ChunkWork *work,
                 Running *running) {
  const Moments &moments = *tail.moments;
  const std::uint32_t pages = (moments.tokens + moments.page_tokens - 1) / moments.page_tokens;
  KeptPages kept[kHeads];
  for (std::uint32_t g = 0; g < head.group; ++g) {
    const List list = lists.list(g);
    kept[g] = KeptPages(list.ranges, list.count, moments.page_tokens);
  }
  for (Run run{0, 0}; run.first < pages; run.first += run.count) {
    run.count = pages - run.first < kChunk ? pages - run.first : kChunk;
    page_logits(head, tail, run, work->logits);
    for (std::uint32_t g = 0; g < head.group; ++g)
      kept[g].hide(run.first, run.count, work->row(g));
    soften_shown(head, run.count, work);
    weigh_pages(head, moments, run, pages, work);
    running->merge(head, *work, true);
  }
}

}  // namespace

void add_tail(const Head &head, const Lists &lists, const Tail &tail, ChunkWork *work,
              Running *running) {
  if (tail.kind == KVSIFT_TAIL_MOMENTS) add_moments(head, lists, tail, work, running);
  if (tail.kind != KVSIFT_TAIL_BALANCE) return;
  const std::uint32_t sharing = lists.per_query_head ? 1 : head.group;
  for (std::uint32_t g = 0; g < head.group; g += sharing) {
    Head part = head;
    part.queries += static_cast<std::size_t>(g) * padded_dim(head.dim);
    part.group = sharing;
    add_coreset(part, lists.list(g), tail, g, work, running);
  }
}

}  // namespace kvsift

#include "attend/prefill.h"

#include "attend/running.h"

namespace kvsift {

namespace {

constexpr std::uint32_t kQueries = 256;  // query rows times heads that share a pass over the keys

// Query rows [first, first + rows) on the way through the cache; their outputs grow in place.
struct Block {
  std::uint32_t first, rows;
  float max[kQueries], sum[kQueries];
};

Head head_of(const Prefill &job, const float *queries, std::uint32_t group) {
  return Head{job.kernels, queries, group, job.dim, job.scale, job.keys, job.values};
}

// Tokens that row r sees.
std::uint32_t seen(const Prefill &job, std::uint32_t row) {
  return job.tokens - job.rows + row + 1;
}

// Item i of a block is group member i % group of its row i / group.
float *out_of(const Prefill &job, const Block &block, std::uint32_t item) {
  return job.out + (block.first + item / job.group) * job.out_row_stride +
         item % job.group * job.dim;
}

void load_queries(const Prefill &job, const Block &block, std::uint32_t item, std::uint32_t count,
                  float *queries) {
  const std::uint32_t dim16 = padded_dim(job.dim);
  for (std::uint32_t i = 0; i < count; ++i, ++item, queries += dim16) {
    const HeadRows rows{job.queries, nullptr, 0, job.first_query_head + item % job.group};
    std::uint32_t one = 1;
    const Rows row = rows.stretch(block.first + item / job.group, &one);
    job.kernels->array.widen_rows(row, 1, job.dim, queries);
  }
}

// Items [item, item + count) take in tokens of one chunk, all of which they see.
void take_chunk(const Prefill &job, Block *block, std::uint32_t item, std::uint32_t count,
                const Run &run, ChunkWork *work, float *queries) {
  load_queries(job, *block, item, count, queries);
  const Head head = head_of(job, queries, count);
  Chunk chunk;
  const Chunk none{};
  chunk.take(run.first, run.count);
  work->dot(head, chunk, Coming{head.values, chunk});
  work->soften(head, run.count);
  work->weigh(head, chunk, Coming{head.keys, none});
  const std::uint32_t dim16 = padded_dim(job.dim);
  merge_chunk(*job.kernels, RowSums{block->max + item, block->sum + item, work->max, work->sum, count},
              job.dim, [&](std::uint32_t i) { return out_of(job, *block, item + i); },
              [&](std::uint32_t i) { return work->acc + i * dim16; });
}

// One chunk of keys for all rows of the block: together where they see all of it, row by row where
// not.
void pass_chunk(const Prefill &job, Block *block, std::uint32_t begin, ChunkWork *work,
                float *queries) {
  const std::uint32_t end = begin + kChunk, items = block->rows * job.group;
  std::uint32_t item = 0;
  while (item < items) {
    const std::uint32_t row = item / job.group, limit = seen(job, block->first + row);
    const bool whole = limit >= end;
    const std::uint32_t last = whole ? items : (row + 1) * job.group;
    const std::uint32_t count = last - item < kHeads ? last - item : kHeads;
    const std::uint32_t stop = whole ? end : limit;
    if (stop > begin) take_chunk(job, block, item, count, Run{begin, stop - begin}, work, queries);
    item += count;
  }
}

void finish(const Prefill &job, const Block &block) {
  for (std::uint32_t item = 0; item < block.rows * job.group; ++item) {
    float *out = out_of(job, block, item);
    const float inverse = 1.0f / block.sum[item];
    for (std::uint32_t c = 0; c < job.dim; ++c) out[c] *= inverse;
  }
}

}  // namespace

void prefill_queries(const Prefill &job, std::uint32_t row, float *queries) {
  Block block;
  block.first = row;
  block.rows = 1;
  load_queries(job, block, 0, job.group, queries);
}

void prefill_attend(const Prefill &job) {
  ChunkWork work;
  float queries[kHeads * KVSIFT_MAX_HEAD_DIM];
  const std::uint32_t rows = kQueries / job.group;
  for (std::uint32_t first = 0; first < job.rows; first += rows) {
    Block block;
    block.first = first;
    block.rows = job.rows - first < rows ? job.rows - first : rows;
    for (std::uint32_t item = 0; item < block.rows * job.group; ++item) {
      block.max[item] = -__builtin_inff();
      block.sum[item] = 0.0f;
      float *out = out_of(job, block, item);
      for (std::uint32_t c = 0; c < job.dim; ++c) out[c] = 0.0f;
    }
    const std::uint32_t end = seen(job, first + block.rows - 1);
    for (std::uint32_t begin = 0; begin < end; begin += kChunk)
      pass_chunk(job, &block, begin, &work, queries);
    finish(job, block);
  }
}

}  // namespace kvsift

#include "attend/together.h"

#include <cstring>

#include "attend/observe.h"

namespace kvsift {

namespace {

constexpr std::uint32_t kTile = 64;  // tokens that all heads take before the next are read

// The heads' query heads are rows of these arrays, one KV head after the other.
struct Work {
  float logits[kTogetherQueries * kChunk];
  float acc[kTogetherFloats];
  float chunk_max[kTogetherQueries], chunk_sum[kTogetherQueries];
  float max[kTogetherQueries], sum[kTogetherQueries];
};

struct Job {
  const Head *heads;
  const Attended *results;
  std::uint32_t count, tokens;

  std::uint32_t queries(std::uint32_t head) const { return head * heads[0].group; }
};

// What head h of a tile asks for of tokens [first, first + n): its part of them where they lie
// without gaps, else its own rows.
Ahead tile_ahead(const Job &job, const HeadRows &(*rows_of)(const Head &), std::uint32_t h,
                 std::uint32_t first, std::uint32_t n) {
  if (first >= job.tokens) return Ahead{};
  if (n > job.tokens - first) n = job.tokens - first;
  const HeadRows &own = rows_of(job.heads[h]);
  const std::uint32_t bytes = job.heads[0].dim * element_bytes(own.view->type);
  const bool dense = own.view->head_stride == bytes &&
                     own.view->token_stride == std::uint64_t{bytes} * job.count;
  if (!dense) {
    const Rows rows = own.stretch(first, &n);
    return Ahead{rows, n, bytes};
  }
  const std::uint32_t begin = n * h / job.count, end = n * (h + 1) / job.count;
  std::uint32_t part = end - begin;
  if (part == 0) return Ahead{};
  Rows rows = rows_of(job.heads[0]).stretch(first + begin, &part);
  rows.stride = bytes;
  return Ahead{rows, part * job.count, bytes};
}

const HeadRows &keys_of(const Head &head) { return head.keys; }
const HeadRows &values_of(const Head &head) { return head.values; }

// Calls use(head, first row, stretch of rows, how many, ahead) for the tiles of tokens
// [begin, begin + count), all heads in each. After the last tile come tokens from `next` on of the
// other rows.
template <class Use>
void by_tiles(const Job &job, std::uint32_t begin, std::uint32_t count,
              const HeadRows &(*rows_of)(const Head &), const HeadRows &(*next_of)(const Head &),
              std::uint32_t next, Use use) {
  for (std::uint32_t at = 0; at < count; at += kTile) {
    const std::uint32_t n = count - at < kTile ? count - at : kTile;
    const bool last = at + n == count;
    for (std::uint32_t h = 0; h < job.count; ++h) {
      Ahead ahead = last ? tile_ahead(job, next_of, h, next, kTile)
                         : tile_ahead(job, rows_of, h, begin + at + n, kTile);
      for (std::uint32_t done = 0, some; done < n; done += some) {
        some = n - done;
        const Rows rows = rows_of(job.heads[h]).stretch(begin + at + done, &some);
        use(h, at + done, rows, some, ahead);
        ahead = Ahead{};
      }
    }
  }
}

void take_chunk(const Job &job, std::uint32_t begin, std::uint32_t count, Work *work) {
  const Head &one = job.heads[0];
  const std::uint32_t dim16 = padded_dim(one.dim);
  by_tiles(job, begin, count, keys_of, values_of, begin,
           [&](std::uint32_t h, std::uint32_t at, const Rows &rows, std::uint32_t n,
               const Ahead &ahead) {
             one.kernels->attention.dot_rows_ahead(
                 job.heads[h].queries, one.group, rows, n, one.dim, one.scale,
                 work->logits + job.queries(h) * kChunk + at, kChunk, ahead);
           });
  Chunk chunk;
  chunk.take(begin, count);
  for (std::uint32_t h = 0; h < job.count; ++h) {
    const std::uint32_t q = job.queries(h);
    float *rows = work->logits + q * kChunk;
    observe_logits(job.heads[h], job.results[h], chunk, rows);
    soften_rows(*one.kernels, rows, one.group, count, work->chunk_max + q, work->chunk_sum + q);
    observe_weights(job.heads[h], job.results[h], chunk, begin / kChunk, rows, work->chunk_max + q);
  }
  std::memset(work->acc, 0, sizeof(float) * job.queries(job.count) * dim16);
  by_tiles(job, begin, count, values_of, keys_of, begin + count,
           [&](std::uint32_t h, std::uint32_t at, const Rows &rows, std::uint32_t n,
               const Ahead &ahead) {
             const std::uint32_t q = job.queries(h);
             one.kernels->attention.weighted_sum_ahead(work->logits + q * kChunk + at, kChunk,
                                                       one.group, rows, n, one.dim,
                                                       work->acc + q * dim16, ahead);
           });
}

// Outputs grow in place.
void merge(const Job &job, Work *work) {
  const Head &one = job.heads[0];
  const RowSums sums{work->max, work->sum, work->chunk_max, work->chunk_sum, job.queries(job.count)};
  merge_chunk(*one.kernels, sums, one.dim,
              [&](std::uint32_t q) { return job.results[q / one.group].out + q % one.group * one.dim; },
              [&](std::uint32_t q) { return work->acc + q * padded_dim(one.dim); });
}

void begin_head(const Head &head, const Attended &result, const List &list, float *max, float *sum) {
  begin_observation(head, result, list);
  std::memset(result.out, 0, sizeof(float) * head.group * head.dim);
  for (std::uint32_t g = 0; g < head.group; ++g) {
    max[g] = -__builtin_inff();
    sum[g] = 0.0f;
  }
}

void finish_head(const Head &head, const Attended &result, const List &list, const float *max,
                 const float *sum) {
  float log_sums[KVSIFT_MAX_GROUP];
  for (std::uint32_t g = 0; g < head.group; ++g) {
    log_sums[g] = log_sum_exp(max[g], sum[g]);
    if (result.log_sum_exp != nullptr) result.log_sum_exp[g] = log_sums[g];
    const float inverse = sum[g] > 0.0f ? 1.0f / sum[g] : 0.0f;
    for (std::uint32_t c = 0; c < head.dim; ++c) result.out[g * head.dim + c] *= inverse;
  }
  finish_masses(head, result, list, log_sums);
}

}  // namespace

bool side_by_side(const kvsift_cache &cache) {
  return cache.keys.head_stride < cache.keys.token_stride &&
         cache.values.head_stride < cache.values.token_stride;
}

void attend_together(const Head *heads, const Attended *results, std::uint32_t count,
                     std::uint32_t tokens) {
  const Job job{heads, results, count, tokens};
  const kvsift_range everything{0, tokens};
  const List list{&everything, 1};
  Work work;
  for (std::uint32_t h = 0; h < count; ++h)
    begin_head(heads[h], results[h], list, work.max + job.queries(h), work.sum + job.queries(h));
  for (std::uint32_t begin = 0; begin < tokens; begin += kChunk) {
    take_chunk(job, begin, tokens - begin < kChunk ? tokens - begin : kChunk, &work);
    merge(job, &work);
  }
  for (std::uint32_t h = 0; h < count; ++h)
    finish_head(heads[h], results[h], list, work.max + job.queries(h), work.sum + job.queries(h));
}

}  // namespace kvsift

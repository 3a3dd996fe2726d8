// What queries make of page summaries.
#pragma once

#include "kernels/dot_impl.h"
#include "kernels/load_part.h"

namespace kvsift {
namespace {

struct SpreadJob {
  const float *queries;
  std::uint32_t dim16;
  float *quadratic, *absolute;  // not yet scaled
  std::size_t stride;
};

// sum (q_c d_c)^2 and sum |q_c| d_c of Q queries and N pages.
template <class V, class T, std::uint32_t Q, std::uint32_t N>
void spread_tile(const SpreadJob &job, const Rows &deviation, std::uint32_t q, std::uint32_t page) {
  using Piece = typename V::Piece;
  const float *queries = job.queries + static_cast<std::size_t>(q) * job.dim16;
  const T *row = row_of<T>(deviation, page);
  const std::uint64_t row_step = deviation.stride / sizeof(T);
  // The first Q lines add squares, the others magnitudes.
  V sum[2 * Q][N];
  const std::uint32_t dim16 = job.dim16;
  by_pieces<V>(
      sum, [=](std::uint32_t begin, Piece(&acc)[2 * Q][N]) __attribute__((always_inline)) {
        each<2 * Q>(
            [&](std::uint32_t k) { each<N>([&](std::uint32_t n) { acc[k][n] = Piece::zero(); }); });
        for (std::uint32_t c = begin; c < dim16; c += kLanes) {
          Piece d[N];
          each<N>([&](std::uint32_t n) { d[n] = Piece::load(row + n * row_step + c); });
          each<Q>([&](std::uint32_t k) {
            const Piece x = abs(Piece::load(queries + k * dim16 + c));
            each<N>([&](std::uint32_t n) {
              const Piece spread = mul(x, d[n]);
              acc[k][n] = fma(spread, spread, acc[k][n]);
              acc[Q + k][n] = add(acc[Q + k][n], spread);
            });
          });
        }
      });
  const std::size_t at = q * job.stride + page;
  if (job.quadratic != nullptr) put_sums<V, Q, N>(sum, job.quadratic + at, job.stride);
  if (job.absolute != nullptr) put_sums<V, Q, N>(sum + Q, job.absolute + at, job.stride);
}

template <class V, class T, std::uint32_t N>
void spread_pages(const SpreadJob &job, const Rows &deviation, std::uint32_t group,
                  std::uint32_t page) {
  constexpr std::uint32_t Q = V::kSpreadTile;
  std::uint32_t q = 0;
  for (; q + Q <= group; q += Q) spread_tile<V, T, Q, N>(job, deviation, q, page);
  for (; q < group; ++q) spread_tile<V, T, 1, N>(job, deviation, q, page);
}

// Results by the scale of their rows, `times` over.
inline void scale_pages(const Rows &rows, std::uint32_t count, std::uint32_t group,
                        std::uint32_t times, float *out, std::size_t stride) {
  if (rows.scales == nullptr || out == nullptr) return;
  for (std::uint32_t g = 0; g < group; ++g)
    for (std::uint32_t i = 0; i < count; ++i)
      for (std::uint32_t t = 0; t < times; ++t) out[g * stride + i] *= scale_of(rows, i);
}

constexpr std::uint32_t kPageBlock = 32;

// Pages [at, at + n) of `rows`, n at most a block, to be asked for.
inline Ahead pages_ahead(const Rows &rows, std::uint32_t at, std::uint32_t end,
                         std::uint32_t bytes) {
  if (at >= end) return Ahead{};
  return Ahead{rows_from(rows, at), end - at < kPageBlock ? end - at : kPageBlock, bytes};
}

// Block by block: each row is asked for while the other array's rows are worked on.
template <class V>
void page_statistics(const float *queries, std::uint32_t group, const Rows &mean,
                     const Rows &deviation, std::uint32_t count, std::uint32_t following,
                     std::uint32_t dim, float *dot, float *quadratic, float *absolute,
                     std::size_t stride) {
  const std::uint32_t dim16 = padded_dim(dim);
  const SpreadJob job{queries, dim16, quadratic, absolute, stride};
  with_type(deviation.type, [&](auto element) {
    using T = decltype(element);
    constexpr std::uint32_t size = sizeof(T);
    for (std::uint32_t begin = 0; begin < count; begin += kPageBlock) {
      const std::uint32_t end = count - begin < kPageBlock ? count : begin + kPageBlock;
      dot_rows_ahead<V>(queries, group, rows_from(mean, begin), end - begin, dim16, 1.0f,
                        dot + begin, stride, pages_ahead(deviation, begin, end, dim16 * size));
      const Ahead next = pages_ahead(mean, end, count + following, dim16 * size);
      std::uint32_t page = begin;
      for (; page + 4 <= end; page += 4) {
        for (std::uint32_t n = 0; n < 4; ++n) ask_for(next, page - begin + n);
        spread_pages<V, T, 4>(job, deviation, group, page);
      }
      for (; page < end; ++page) spread_pages<V, T, 1>(job, deviation, group, page);
    }
  });
  scale_pages(deviation, count, group, 2, quadratic, stride);
  scale_pages(deviation, count, group, 1, absolute, stride);
}

// max(q l, q h) with l <= h is q h for positive q and q l for negative: two products with half the
// query each.
template <class V>
void page_bounds(const float *queries, std::uint32_t group, const Rows &low, const Rows &high,
                 std::uint32_t count, std::uint32_t dim, float scale, float *scores,
                 std::size_t stride) {
  const std::uint32_t dim16 = padded_dim(dim), bytes = dim16 * element_size(low.type);
  float positive[4 * KVSIFT_MAX_HEAD_DIM], negative[4 * KVSIFT_MAX_HEAD_DIM],
      second[4 * kPageBlock];
  for (std::uint32_t q = 0; q < group; q += 4) {
    const std::uint32_t n = group - q < 4 ? group - q : 4;
    for (std::uint32_t c = 0; c < n * dim16; c += kLanes) {
      const V x = V::load(queries + q * dim16 + c);
      store(positive + c, max(x, V::zero()));
      store(negative + c, min(x, V::zero()));
    }
    for (std::uint32_t at = 0; at < count; at += kPageBlock) {
      const std::uint32_t end = count - at < kPageBlock ? count : at + kPageBlock;
      float *out = scores + q * stride + at;
      dot_rows_ahead<V>(positive, n, rows_from(high, at), end - at, dim16, scale, out, stride,
                        pages_ahead(low, at, end, bytes));
      dot_rows_ahead<V>(negative, n, rows_from(low, at), end - at, dim16, scale, second, kPageBlock,
                        pages_ahead(high, end, count, bytes));
      for (std::uint32_t k = 0; k < n; ++k)
        for (std::uint32_t i = 0; i < end - at; ++i)
          out[k * stride + i] += second[k * kPageBlock + i];
    }
  }
}

}  // namespace
}  // namespace kvsift

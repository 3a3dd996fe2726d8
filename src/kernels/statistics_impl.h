// What queries make of page summaries.
#pragma once

#include "kernels/dot_impl.h"
#include "kernels/load_part.h"

namespace kvsift {
namespace {

// Query rows, what of them meets the deviations (squares or magnitudes), and where the sums go, not yet scaled.
struct StatisticsJob {
  const float *queries, *factors;
  std::uint32_t dim16;
  float *dot, *spread;
  std::size_t stride;
};

// sum q_c m_c, and sum q_c^2 d_c^2 (Squared) or sum |q_c| d_c, of Q queries and N pages in one pass over the pages' rows.
template <class V, class T, bool Squared, std::uint32_t Q, std::uint32_t N>
void statistics_tile(const StatisticsJob &job, const Rows &mean, const Rows &deviation,
                     std::uint32_t q, std::uint32_t page) {
  using Piece = typename V::Piece;
  const std::uint32_t dim16 = job.dim16;
  const float *queries = job.queries + static_cast<std::size_t>(q) * dim16;
  const float *factors = job.factors + static_cast<std::size_t>(q) * dim16;
  const T *mean_row = row_of<T>(mean, page), *deviation_row = row_of<T>(deviation, page);
  const std::uint64_t mean_step = mean.stride / sizeof(T);
  const std::uint64_t deviation_step = deviation.stride / sizeof(T);
  // Q lines of dot products, then Q of spreads.
  V sum[2 * Q][N];
  by_pieces<V>(
      sum, [=](std::uint32_t begin, Piece(&acc)[2 * Q][N]) __attribute__((always_inline)) {
        each<2 * Q>(
            [&](std::uint32_t k) { each<N>([&](std::uint32_t n) { acc[k][n] = Piece::zero(); }); });
        for (std::uint32_t c = begin; c < dim16; c += kLanes) {
          Piece m[N], d[N];
          each<N>([&](std::uint32_t n) {
            m[n] = Piece::load(mean_row + n * mean_step + c);
            d[n] = Piece::load(deviation_row + n * deviation_step + c);
            if constexpr (Squared) d[n] = mul(d[n], d[n]);
          });
          each<Q>([&](std::uint32_t k) {
            const Piece x = Piece::load(queries + k * dim16 + c);
            each<N>([&](std::uint32_t n) { acc[k][n] = fma(x, m[n], acc[k][n]); });
            const Piece y = Piece::load(factors + k * dim16 + c);
            each<N>([&](std::uint32_t n) { acc[Q + k][n] = fma(y, d[n], acc[Q + k][n]); });
          });
        }
      });
  const std::size_t at = q * job.stride + page;
  put_sums<V, Q, N>(sum, job.dot + at, job.stride);
  put_sums<V, Q, N>(sum + Q, job.spread + at, job.stride);
}

template <class V, class T, bool Squared, std::uint32_t N>
void statistics_pages(const StatisticsJob &job, const Rows &mean, const Rows &deviation,
                      std::uint32_t group, std::uint32_t page) {
  constexpr std::uint32_t Q = V::kSpreadTile;
  std::uint32_t q = 0;
  for (; q + Q <= group; q += Q)
    statistics_tile<V, T, Squared, Q, N>(job, mean, deviation, q, page);
  for (; q < group; ++q) statistics_tile<V, T, Squared, 1, N>(job, mean, deviation, q, page);
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

constexpr std::uint32_t kPagesAhead = 24, kStatisticsGroup = 8;

// All pages for at most kStatisticsGroup queries.
template <class V, class T, bool Squared>
void statistics_run(const StatisticsJob &job, const Rows &mean, const Rows &deviation,
                    std::uint32_t group, std::uint32_t count, std::uint32_t following) {
  const Ahead means{mean, count + following, job.dim16 * static_cast<std::uint32_t>(sizeof(T))};
  const Ahead deviations{deviation, count + following, means.bytes};
  std::uint32_t page = 0;
  for (; page + 2 <= count; page += 2) {
    for (std::uint32_t n = page + kPagesAhead; n < page + kPagesAhead + 2; ++n) {
      ask_for(means, n);
      ask_for(deviations, n);
    }
    statistics_pages<V, T, Squared, 2>(job, mean, deviation, group, page);
  }
  for (; page < count; ++page)
    statistics_pages<V, T, Squared, 1>(job, mean, deviation, group, page);
}

template <class V, bool Squared>
void statistics_of(const float *queries, std::uint32_t group, const Rows &mean,
                   const Rows &deviation, std::uint32_t count, std::uint32_t following,
                   std::uint32_t dim, float *dot, float *spread, std::size_t stride) {
  const std::uint32_t dim16 = padded_dim(dim);
  float factors[kStatisticsGroup * KVSIFT_MAX_HEAD_DIM];
  for (std::uint32_t q = 0; q < group; q += kStatisticsGroup) {
    const std::uint32_t n = group - q < kStatisticsGroup ? group - q : kStatisticsGroup;
    const float *some = queries + q * dim16;
    for (std::uint32_t c = 0; c < n * dim16; c += kLanes) {
      const V x = V::load(some + c);
      store(factors + c, Squared ? mul(x, x) : abs(x));
    }
    const StatisticsJob job{some, factors, dim16, dot + q * stride, spread + q * stride, stride};
    if (deviation.type == KVSIFT_I8) {
      statistics_run<V, std::int8_t, Squared>(job, mean, deviation, n, count, following);
    } else {
      statistics_run<V, F16, Squared>(job, mean, deviation, n, count, following);
    }
  }
  scale_pages(mean, count, group, 1, dot, stride);
  scale_pages(deviation, count, group, Squared ? 2 : 1, spread, stride);
}

template <class V>
void page_statistics(const float *queries, std::uint32_t group, const Rows &mean,
                     const Rows &deviation, std::uint32_t count, std::uint32_t following,
                     std::uint32_t dim, bool squared, float *dot, float *spread,
                     std::size_t stride) {
  if (squared) {
    statistics_of<V, true>(queries, group, mean, deviation, count, following, dim, dot, spread,
                           stride);
  } else {
    statistics_of<V, false>(queries, group, mean, deviation, count, following, dim, dot, spread,
                            stride);
  }
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

// What queries make of page summaries.
#pragma once

#include "kernels/codes_impl.h"

namespace kvsift {
namespace {

// Results by the scale of their rows, `times` over, and by that of their query.
template <class V>
void scale_pages(const Rows &rows, const float *query_scales, std::uint32_t count, std::uint32_t group,
                 std::uint32_t times, float *out, std::size_t stride) {
  for (std::uint32_t g = 0; g < group; ++g) {
    float *row = out + g * stride;
    const V of_query = V::broadcast(query_scales[g]);
    std::uint32_t i = 0;
    for (; i + kLanes <= count; i += kLanes) {
      const V scale = V::load(rows.scales + i);
      V x = V::load(row + i);
      for (std::uint32_t t = 0; t < times; ++t) x = mul(x, scale);
      store(row + i, mul(x, of_query));
    }
    for (; i < count; ++i) {
      for (std::uint32_t t = 0; t < times; ++t) row[i] *= rows.scales[i];
      row[i] *= query_scales[g];
    }
  }
}

constexpr std::uint32_t kPageBlock = 32;

// Pages [at, at + n) of `rows`, n at most a block, to be asked for.
inline Ahead pages_ahead(const Rows &rows, std::uint32_t at, std::uint32_t end,
                         std::uint32_t bytes) {
  if (at >= end) return Ahead{};
  return Ahead{rows_from(rows, at), end - at < kPageBlock ? end - at : kPageBlock, bytes};
}

constexpr std::uint32_t kPagesAhead = 24, kStatisticsGroup = kCodedGroup;

// What the queries' elements meet the deviations with.
template <class V, bool Squared>
void deviation_factors(const float *queries, std::uint32_t n, float *out) {
  for (std::uint32_t c = 0; c < n; c += kLanes) {
    const V x = V::load(queries + c);
    store(out + c, Squared ? mul(x, x) : abs(x));
  }
}

template <std::uint32_t N>
struct Pages {
  static constexpr std::uint32_t kCount = N;
};

// Four pages at a time, then one: take(Pages<N>, first page). Both rows of a page are read before the next's.
template <class F>
inline __attribute__((always_inline)) void by_pages(std::uint32_t count, F take) {
  std::uint32_t page = 0;
  for (; page + 4 <= count; page += 4) take(Pages<4>{}, page);
  for (; page < count; ++page) take(Pages<1>{}, page);
}

// The arrays of one call, from its first page on.
struct PageRows {
  Rows mean, deviation;
  std::uint32_t count, following, dim16;

  Ahead ahead(const Rows &rows) const {
    return Ahead{rows, count + following, dim16 * element_size(rows.type)};
  }
  // Those from kPagesAhead on.
  Ahead coming(const Rows &rows) const {
    const Ahead all = ahead(rows);
    if (all.count <= kPagesAhead) return Ahead{};
    return Ahead{rows_from(rows, kPagesAhead), all.count - kPagesAhead, all.bytes};
  }
};

// For at most kStatisticsGroup queries: what meets the means, and what the deviations.
template <class V, Form F>
void half_statistics(const float *queries, const float *factors, std::uint32_t group, const PageRows &rows, float *dot,
                     float *spread, std::size_t stride) {
  const DotJob means{queries, rows.dim16, rows.dim16, dot, stride, rows.coming(rows.mean), 0};
  const DotJob deviations{factors, rows.dim16, rows.dim16, spread, stride, rows.coming(rows.deviation), 0};
  dot_run<V, Strided, F16, Form::kWhole>(means, rows.mean, group, rows.count);
  dot_run<V, Strided, F16, F>(deviations, rows.deviation, group, rows.count);
}

// The same of int8 pages, in whole numbers.
template <class V, Form F>
void coded_statistics(const float *queries, const float *factors, std::uint32_t group, const PageRows &rows, float *dot,
                      float *spread, std::size_t stride) {
  constexpr bool squared = F == Form::kSquared;
  CodedQueries of_mean, of_deviation;
  code_queries<V>(queries, group, rows.dim16, &of_mean);
  code_queries<V>(factors, group, rows.dim16, &of_deviation);
  for (std::uint32_t g = 0; squared && g < group; ++g) of_deviation.scale[g] *= kSquareUnit;
  const CodedJob means{{of_mean.code, rows.dim16, rows.dim16, dot, stride, rows.ahead(rows.mean), kPagesAhead}, of_mean.sum};
  const CodedJob deviations{{of_deviation.code, rows.dim16, rows.dim16, spread, stride, rows.ahead(rows.deviation), kPagesAhead},
                            of_deviation.sum};
  by_pages(rows.count, [&](auto n, std::uint32_t page) __attribute__((always_inline)) {
    coded_rows<V, n.kCount, Form::kWhole>(means, rows.mean, group, page);
    coded_rows<V, n.kCount, F>(deviations, rows.deviation, group, page);
  });
  scale_pages<V>(rows.mean, of_mean.scale, rows.count, group, 1, dot, stride);
  scale_pages<V>(rows.deviation, of_deviation.scale, rows.count, group, squared ? 2 : 1, spread, stride);
}

// How the pages are kept.
enum class Kept { kHalves, kCodes };

template <class V, Kept K, Form F>
void statistics_of(const float *queries, std::uint32_t group, const PageRows &rows, float *dot, float *spread,
                   std::size_t stride) {
  float factors[kStatisticsGroup * KVSIFT_MAX_HEAD_DIM];
  for (std::uint32_t q = 0; q < group; q += kStatisticsGroup) {
    const std::uint32_t n = group - q < kStatisticsGroup ? group - q : kStatisticsGroup;
    const float *some = queries + q * rows.dim16;
    deviation_factors<V, F == Form::kSquared>(some, n * rows.dim16, factors);
    if constexpr (K == Kept::kCodes) {
      coded_statistics<V, F>(some, factors, n, rows, dot + q * stride, spread + q * stride, stride);
    } else {
      half_statistics<V, F>(some, factors, n, rows, dot + q * stride, spread + q * stride, stride);
    }
  }
}

template <class V, Kept K>
void page_statistics(const float *queries, std::uint32_t group, const Rows &mean,
                     const Rows &deviation, std::uint32_t count, std::uint32_t following,
                     std::uint32_t dim, bool squared, float *dot, float *spread,
                     std::size_t stride) {
  const PageRows rows{mean, deviation, count, following, padded_dim(dim)};
  if (squared) {
    statistics_of<V, K, Form::kSquared>(queries, group, rows, dot, spread, stride);
  } else {
    statistics_of<V, K, Form::kWhole>(queries, group, rows, dot, spread, stride);
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

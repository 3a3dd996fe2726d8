// What queries make of page summaries.
#pragma once

#include "kernels/dot_impl.h"
#include "kernels/load_part.h"

namespace kvsift {
namespace {

// Results by the scale of their rows, `times` over.
template <class V>
void scale_pages(const Rows &rows, std::uint32_t count, std::uint32_t group, std::uint32_t times,
                 float *out, std::size_t stride) {
  if (rows.scales == nullptr || out == nullptr) return;
  const bool dense = rows.scale_stride == sizeof(float);
  for (std::uint32_t g = 0; g < group; ++g) {
    float *row = out + g * stride;
    std::uint32_t i = 0;
    for (; dense && i + kLanes <= count; i += kLanes) {
      const V scale = V::load(rows.scales + i);
      V x = V::load(row + i);
      for (std::uint32_t t = 0; t < times; ++t) x = mul(x, scale);
      store(row + i, x);
    }
    for (; i < count; ++i)
      for (std::uint32_t t = 0; t < times; ++t) row[i] *= scale_of(rows, i);
  }
}

constexpr std::uint32_t kPageBlock = 32;

// Pages [at, at + n) of `rows`, n at most a block, to be asked for.
inline Ahead pages_ahead(const Rows &rows, std::uint32_t at, std::uint32_t end,
                         std::uint32_t bytes) {
  if (at >= end) return Ahead{};
  return Ahead{rows_from(rows, at), end - at < kPageBlock ? end - at : kPageBlock, bytes};
}

constexpr std::uint32_t kPagesAhead = 24, kStatisticsGroup = 8;

// All pages for at most kStatisticsGroup queries: what meets the means, and what the deviations. Both rows of
// a page are read before the next page's.
template <class V, class T, Form F>
void statistics_run(const DotJob &means_job, const DotJob &deviations_job, const Rows &mean,
                    const Rows &deviation, std::uint32_t group, std::uint32_t count) {
  std::uint32_t page = 0;
  for (; page + 4 <= count; page += 4) {
    dot_tokens<V, T, 4, Form::kWhole>(means_job, mean, group, page);
    dot_tokens<V, T, 4, F>(deviations_job, deviation, group, page);
  }
  for (; page < count; ++page) {
    dot_tokens<V, T, 1, Form::kWhole>(means_job, mean, group, page);
    dot_tokens<V, T, 1, F>(deviations_job, deviation, group, page);
  }
}

template <class V, bool Squared>
void statistics_of(const float *queries, std::uint32_t group, const Rows &mean,
                   const Rows &deviation, std::uint32_t count, std::uint32_t following,
                   std::uint32_t dim, float *dot, float *spread, std::size_t stride) {
  const std::uint32_t dim16 = padded_dim(dim), bytes = dim16 * element_size(mean.type);
  float factors[kStatisticsGroup * KVSIFT_MAX_HEAD_DIM];
  for (std::uint32_t q = 0; q < group; q += kStatisticsGroup) {
    const std::uint32_t n = group - q < kStatisticsGroup ? group - q : kStatisticsGroup;
    const float *some = queries + q * dim16;
    for (std::uint32_t c = 0; c < n * dim16; c += kLanes) {
      const V x = V::load(some + c);
      store(factors + c, Squared ? mul(x, x) : abs(x));
    }
    const std::uint32_t known = count + following;
    const DotJob means{some,   dim16, dim16, dot + q * stride,
                       stride, Ahead{mean, known, bytes}, kPagesAhead};
    const DotJob deviations{factors, dim16, dim16, spread + q * stride,
                            stride,  Ahead{deviation, known, bytes}, kPagesAhead};
    constexpr Form form = Squared ? Form::kSquared : Form::kWhole;
    if (deviation.type == KVSIFT_I8) {
      statistics_run<V, std::int8_t, form>(means, deviations, mean, deviation, n, count);
    } else {
      statistics_run<V, F16, form>(means, deviations, mean, deviation, n, count);
    }
  }
  scale_pages<V>(mean, count, group, 1, dot, stride);
  scale_pages<V>(deviation, count, group, Squared ? 2 : 1, spread, stride);
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

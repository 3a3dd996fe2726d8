// What queries make of page summaries, in one pass over the two rows of each page.
#pragma once

#include "kernels/load_part.h"

namespace kvsift {
namespace {

struct PageJob {
  const float *queries;
  std::uint32_t dim16;
  std::size_t stride;
  float scale;               // bounds
  float *dot;                // or the bounds' scores
  float *quadratic, *absolute;
};

template <class V, std::uint32_t Q>
void reduce_queries(const V (&acc)[Q], float (&sums)[Q]) {
  if constexpr (Q == 4) {
    reduce_add4(acc[0], acc[1], acc[2], acc[3], sums);
  } else {
    for (std::uint32_t k = 0; k < Q; ++k) sums[k] = reduce_add(acc[k]);
  }
}

template <class V, std::uint32_t Q>
void put(const PageJob &job, std::uint32_t q, std::uint32_t page, const V (&acc)[Q], float scale, float *out) {
  float sums[Q];
  reduce_queries<V, Q>(acc, sums);
  for (std::uint32_t k = 0; k < Q; ++k) out[(q + k) * job.stride + page] = sums[k] * scale;
}

struct Statistics {
  template <class V, class T, std::uint32_t Q>
  static void tile(const PageJob &job, const Rows &mean, const Rows &deviation, std::uint32_t q,
                   std::uint32_t page) {
    const float *queries = job.queries + static_cast<std::size_t>(q) * job.dim16;
    const T *mean_row = row_of<T>(mean, page), *deviation_row = row_of<T>(deviation, page);
    V dot[Q], quadratic[Q], absolute[Q];
    for (std::uint32_t k = 0; k < Q; ++k) dot[k] = quadratic[k] = absolute[k] = V::zero();
    for (std::uint32_t c = 0; c < job.dim16; c += kLanes) {
      const V m = V::load(mean_row + c), d = V::load(deviation_row + c);
      for (std::uint32_t k = 0; k < Q; ++k) {
        const V x = V::load(queries + k * job.dim16 + c);
        const V spread = mul(abs(x), d);
        dot[k] = fma(x, m, dot[k]);
        quadratic[k] = fma(spread, spread, quadratic[k]);
        absolute[k] = add(absolute[k], spread);
      }
    }
    const float s = scale_of(deviation, page);
    put(job, q, page, dot, scale_of(mean, page), job.dot);
    if (job.quadratic != nullptr) put(job, q, page, quadratic, s * s, job.quadratic);
    if (job.absolute != nullptr) put(job, q, page, absolute, s, job.absolute);
  }
};

struct Bounds {
  template <class V, class T, std::uint32_t Q>
  static void tile(const PageJob &job, const Rows &low, const Rows &high, std::uint32_t q, std::uint32_t page) {
    const float *queries = job.queries + static_cast<std::size_t>(q) * job.dim16;
    const T *low_row = row_of<T>(low, page), *high_row = row_of<T>(high, page);
    V acc[Q];
    for (V &a : acc) a = V::zero();
    for (std::uint32_t c = 0; c < job.dim16; c += kLanes) {
      const V l = V::load(low_row + c), h = V::load(high_row + c);
      for (std::uint32_t k = 0; k < Q; ++k) {
        const V x = V::load(queries + k * job.dim16 + c);
        acc[k] = fma(x, where_less(x, V::zero(), l, h), acc[k]);
      }
    }
    put(job, q, page, acc, job.scale, job.dot);
  }
};

template <class Tile, class V>
void page_pass(const PageJob &job, std::uint32_t group, const Rows &first, const Rows &second,
               std::uint32_t count) {
  with_type(first.type, [&](auto element) {
    using T = decltype(element);
    for (std::uint32_t page = 0; page < count; ++page) {
      std::uint32_t q = 0;
      for (; q + V::kPageTile <= group; q += V::kPageTile)
        Tile::template tile<V, T, V::kPageTile>(job, first, second, q, page);
      for (; q < group; ++q) Tile::template tile<V, T, 1>(job, first, second, q, page);
    }
  });
}

template <class V>
void page_statistics(const float *queries, std::uint32_t group, const Rows &mean, const Rows &deviation,
                     std::uint32_t count, std::uint32_t dim, float *dot, float *quadratic, float *absolute,
                     std::size_t stride) {
  const PageJob job{queries, padded_dim(dim), stride, 1.0f, dot, quadratic, absolute};
  page_pass<Statistics, V>(job, group, mean, deviation, count);
}

template <class V>
void page_bounds(const float *queries, std::uint32_t group, const Rows &low, const Rows &high,
                 std::uint32_t count, std::uint32_t dim, float scale, float *scores, std::size_t stride) {
  const PageJob job{queries, padded_dim(dim), stride, scale, scores, nullptr, nullptr};
  page_pass<Bounds, V>(job, group, low, high, count);
}

}  // namespace
}  // namespace kvsift

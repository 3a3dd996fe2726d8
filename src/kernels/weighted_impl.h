// Weighted sums of rows: each output element adds the rows in order by fma.
#pragma once

#include "kernels/places.h"

namespace kvsift {
namespace {

constexpr std::uint32_t kBlockRows = 32;

struct WeightedJob {
  const float *weights;
  std::size_t stride;
  std::uint32_t dim, dim16;
  float *acc;
  Ahead ahead;
};

// Elements c .. of Q accumulators, D vectors wide, over rows [begin, end). Cut: only dim - c
// elements are left.
template <class V, class At, class T, std::uint32_t Q, std::uint32_t D, bool Cut>
void weighted_tile(const WeightedJob &job, const Rows &rows, std::uint32_t q, std::uint32_t c,
                   std::uint32_t begin, std::uint32_t end) {
  V acc[Q][D];
  float *out = job.acc + static_cast<std::size_t>(q) * job.dim16 + c;
  const std::size_t stride = job.stride, dim16 = job.dim16;
  const float *weights = job.weights + q * stride;
  each<Q>([&](std::uint32_t k) {
    each<D>([&](std::uint32_t d) { acc[k][d] = V::load(out + k * dim16 + d * kLanes); });
  });
  const typename At::template All<T> all(rows);
  const typename At::template All<std::uint8_t> coming(job.ahead.rows);
  const std::uint32_t asked = q == 0 ? job.ahead.count : 0;
  for (std::uint32_t i = begin; i < end; ++i) {
    const T *row = all[i] + c;
    if (i < asked) ask_for_lines(coming[i], c * sizeof(T), (c + D * kLanes) * sizeof(T));
    V value[D];
    if constexpr (Cut) {
      value[0] = load_part<V>(row, job.dim - c);
    } else {
      each<D>([&](std::uint32_t d) { value[d] = V::load(row + d * kLanes); });
    }
    each<Q>([&](std::uint32_t k) {
      float weight = weights[k * stride + i];
      if constexpr (sizeof(T) == 1) weight *= scale_of(rows, i);
      const V w = V::broadcast(weight);
      each<D>([&](std::uint32_t d) { acc[k][d] = fma(w, value[d], acc[k][d]); });
    });
  }
  each<Q>([&](std::uint32_t k) {
    each<D>([&](std::uint32_t d) { store(out + k * dim16 + d * kLanes, acc[k][d]); });
  });
}

template <class V, class At, class T, std::uint32_t D, bool Cut>
void weighted_columns(const WeightedJob &job, const Rows &rows, std::uint32_t group,
                      std::uint32_t c, std::uint32_t begin, std::uint32_t end) {
  constexpr std::uint32_t Q = V::kQueryTile;
  std::uint32_t q = 0;
  for (; q + Q <= group; q += Q) weighted_tile<V, At, T, Q, D, Cut>(job, rows, q, c, begin, end);
  for (; q < group; ++q) weighted_tile<V, At, T, 1, D, Cut>(job, rows, q, c, begin, end);
}

// Rows are taken in blocks that stay in the first-level cache while the columns are gone through, where a cache line is
// read more than once.
template <class V, class At, class T>
void weighted_run(const WeightedJob &job, const Rows &rows, std::uint32_t group, std::uint32_t count) {
  constexpr std::uint32_t width = V::kDimTile * kLanes;
  const bool once = group <= V::kQueryTile && width * sizeof(T) % kLineBytes == 0;
  const std::uint32_t step = once ? count : kBlockRows;
  for (std::uint32_t begin = 0; begin < count; begin += step) {
    const std::uint32_t end = count - begin < step ? count : begin + step;
    std::uint32_t c = 0;
    for (; c + width <= job.dim; c += width)
      weighted_columns<V, At, T, V::kDimTile, false>(job, rows, group, c, begin, end);
    for (; c + kLanes <= job.dim; c += kLanes)
      weighted_columns<V, At, T, 1, false>(job, rows, group, c, begin, end);
    if (c < job.dim) weighted_columns<V, At, T, 1, true>(job, rows, group, c, begin, end);
  }
}

template <class V>
void weighted_sum_ahead(const float *weights, std::size_t stride, std::uint32_t group,
                        const Rows &rows, std::uint32_t count, std::uint32_t dim, float *acc,
                        const Ahead &ahead) {
  const WeightedJob job{weights, stride, dim, padded_dim(dim), acc, ahead};
  with_type(rows.type, [&](auto element) {
    using T = decltype(element);
    by_places<V>(rows, [&](auto places) {
      weighted_run<V, decltype(places), T>(job, rows, group, count);
    });
  });
}

template <class V>
void weighted_sum(const float *weights, std::size_t stride, std::uint32_t group, const Rows &rows,
                  std::uint32_t count, std::uint32_t dim, float *acc) {
  weighted_sum_ahead<V>(weights, stride, group, rows, count, dim, acc, Ahead{});
}

}  // namespace
}  // namespace kvsift

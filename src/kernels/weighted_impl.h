// Weighted sums of rows: each output element adds the rows in order by fma.
#pragma once

#include "kernels/load_part.h"

namespace kvsift {
namespace {

struct WeightedJob {
  const float *weights;
  std::size_t stride;
  std::uint32_t count, dim, dim16;
  float *acc;
};

// Elements c .. of Q accumulators, D vectors wide; the last may be cut short by the rows' end.
template <class V, class T, std::uint32_t Q, std::uint32_t D>
void weighted_tile(const WeightedJob &job, const Rows &rows, std::uint32_t q, std::uint32_t c) {
  V acc[Q][D];
  float *out = job.acc + static_cast<std::size_t>(q) * job.dim16 + c;
  const float *weights = job.weights + q * job.stride;
  for (std::uint32_t k = 0; k < Q; ++k)
    for (std::uint32_t d = 0; d < D; ++d) acc[k][d] = V::load(out + k * job.dim16 + d * kLanes);
  const bool part = c + D * kLanes > job.dim;
  for (std::uint32_t i = 0; i < job.count; ++i) {
    const T *row = row_of<T>(rows, i) + c;
    V value[D];
    if (D == 1 && part) {
      value[0] = load_part<V>(row, job.dim - c);
    } else {
      for (std::uint32_t d = 0; d < D; ++d) value[d] = V::load(row + d * kLanes);
    }
    const float row_scale = scale_of(rows, i);
    for (std::uint32_t k = 0; k < Q; ++k) {
      const V w = V::broadcast(weights[k * job.stride + i] * row_scale);
      for (std::uint32_t d = 0; d < D; ++d) acc[k][d] = fma(w, value[d], acc[k][d]);
    }
  }
  for (std::uint32_t k = 0; k < Q; ++k)
    for (std::uint32_t d = 0; d < D; ++d) store(out + k * job.dim16 + d * kLanes, acc[k][d]);
}

template <class V, class T, std::uint32_t D>
void weighted_columns(const WeightedJob &job, const Rows &rows, std::uint32_t group, std::uint32_t c) {
  std::uint32_t q = 0;
  for (; q + V::kQueryTile <= group; q += V::kQueryTile) weighted_tile<V, T, V::kQueryTile, D>(job, rows, q, c);
  for (; q < group; ++q) weighted_tile<V, T, 1, D>(job, rows, q, c);
}

template <class V>
void weighted_sum(const float *weights, std::size_t stride, std::uint32_t group, const Rows &rows,
                  std::uint32_t count, std::uint32_t dim, float *acc) {
  const WeightedJob job{weights, stride, count, dim, padded_dim(dim), acc};
  with_type(rows.type, [&](auto element) {
    using T = decltype(element);
    constexpr std::uint32_t width = V::kDimTile * kLanes;
    std::uint32_t c = 0;
    for (; c + width <= dim; c += width) weighted_columns<V, T, V::kDimTile>(job, rows, group, c);
    for (; c < dim; c += kLanes) weighted_columns<V, T, 1>(job, rows, group, c);
  });
}

}  // namespace
}  // namespace kvsift

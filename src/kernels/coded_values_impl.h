// Weighted sums of int8 rows in whole numbers: a row's weight times its scale becomes an int16 in a unit of its query. Sums of
// whole numbers are exact, so their order is free, and rows are taken in pairs.
#pragma once

#include "kernels/array_impl.h"
#include "kernels/page_kernels.h"
#include "kernels/places.h"

namespace kvsift {
namespace {

// weight * scale in units of the largest / kLargestWeight, which is returned; zeros behind them, to a multiple of kLanes.
template <class V>
float code_weights(const float *weights, const float *scales, std::uint32_t count, std::int16_t *code) {
  float scaled[kCodedRows];
  V largest = V::zero();
  for (std::uint32_t i = 0; i < count; i += kLanes) {
    const std::uint32_t n = count - i;
    const V x = n < kLanes ? mul(load_part<V>(weights + i, n), load_part<V>(scales + i, n))
                           : mul(V::load(weights + i), V::load(scales + i));
    store(scaled + i, x);
    largest = max(largest, x);
  }
  const float unit = reduce_max(largest) / kLargestWeight;
  // A unit too small to divide by stands for weights of zero.
  const V inverse = V::broadcast(unit < 0x1p-120f ? 0.0f : 1.0f / unit);
  for (std::uint32_t i = 0; i < count; i += kLanes) store(code + i, nearest(mul(V::load(scaled + i), inverse)));
  return unit;
}

struct ValuesJob {
  const std::int16_t *code;  // [query][kCodedRows]
  const float *unit;
  const Rows &rows;
  std::uint32_t count, dim16;
  float *out;
  Ahead ahead;
};

// Columns c .. of queries q .. q + Q - 1, D times as many as a pair of rows gives, or the `left` columns there are.
template <class V, std::uint32_t Q, std::uint32_t D>
void values_tile(const ValuesJob &job, std::uint32_t q, std::uint32_t c, std::uint32_t left) {
  using Pair = typename V::RowPair;
  constexpr std::uint32_t width = Pair::kColumns;
  typename V::PairSums sum[Q][D];
  each<Q>([&](std::uint32_t k) { each<D>([&](std::uint32_t d) { sum[k][d] = V::PairSums::zero(); }); });
  const std::int16_t *code = job.code + q * kCodedRows;
  static_assert(D * width <= kLineBytes, "one line is asked for");
  const std::uint32_t asked = q == 0 && c % kLineBytes == 0 ? job.ahead.count : 0;
  const Strided::All<std::int8_t> rows(job.rows);
  const Strided::All<std::uint8_t> coming(job.ahead.rows);
  for (std::uint32_t i = 0; i < job.count; i += 2) {
    if (i < asked) ask_for_line(coming[i] + c);
    if (i + 1 < asked) ask_for_line(coming[i + 1] + c);
    // The last of an odd number is its own partner, which weighs nothing.
    const std::int8_t *a = rows[i] + c, *b = rows[i + 1 < job.count ? i + 1 : i] + c;
    Pair x[D];
    each<D>([&](std::uint32_t d) { x[d] = Pair::load(a + d * width, b + d * width, D == 1 ? left : width); });
    each<Q>([&](std::uint32_t k) {
      const typename V::PairWeights w(code + k * kCodedRows + i);
      each<D>([&](std::uint32_t d) { sum[k][d] = add_pair(x[d], w, sum[k][d]); });
    });
  }
  each<Q>([&](std::uint32_t k) {
    each<D>([&](std::uint32_t d) {
      float *out = job.out + (q + k) * job.dim16 + c + d * width;
      float whole[width];
      to_floats(sum[k][d], whole);
      const V unit = V::broadcast(job.unit[q + k]);
      for (std::uint32_t n = 0; n < width && n < left; n += kLanes) store(out + n, mul(V::load(whole + n), unit));
    });
  });
}

template <class V, std::uint32_t D>
void values_columns(const ValuesJob &job, std::uint32_t group, std::uint32_t c, std::uint32_t left) {
  constexpr std::uint32_t Q = V::kQueryTile;
  std::uint32_t q = 0;
  for (; q + Q <= group; q += Q) values_tile<V, Q, D>(job, q, c, left);
  for (; q < group; ++q) values_tile<V, 1, D>(job, q, c, left);
}

template <class V>
void coded_values(const float *weights, std::size_t stride, std::uint32_t group, const Rows &rows, std::uint32_t count,
                  std::uint32_t dim, float *out, const Ahead &ahead) {
  constexpr std::uint32_t width = V::RowPair::kColumns, tile = V::kPairTile * width, at_once = 8;
  const std::uint32_t dim16 = padded_dim(dim);
  std::int16_t code[at_once * kCodedRows];
  float unit[at_once];
  for (std::uint32_t q = 0; q < group; q += at_once) {
    const std::uint32_t n = group - q < at_once ? group - q : at_once;
    for (std::uint32_t k = 0; k < n; ++k)
      unit[k] = code_weights<V>(weights + (q + k) * stride, rows.scales, count, code + k * kCodedRows);
    const ValuesJob job{code, unit, rows, count, dim16, out + q * dim16, q == 0 ? ahead : Ahead{}};
    std::uint32_t c = 0;
    for (; c + tile <= dim16; c += tile) values_columns<V, V::kPairTile>(job, n, c, tile);
    for (; c < dim16; c += width) values_columns<V, 1>(job, n, c, dim16 - c < width ? dim16 - c : width);
  }
}

}  // namespace
}  // namespace kvsift

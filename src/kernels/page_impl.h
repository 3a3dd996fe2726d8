#pragma once

#include "kernels/coded_values_impl.h"
#include "kernels/exp.h"
#include "kernels/load_part.h"
#include "kernels/page_kernels.h"
#include "kernels/statistics_impl.h"

namespace kvsift {
namespace {

template <class V, class T>
V load_row(const T *row, std::uint32_t c, std::uint32_t dim) {
  return c + kLanes <= dim ? V::load(row + c) : load_part<V>(row + c, dim - c);
}

template <class V, class T>
void append_row(const T *row, float row_scale, std::uint32_t dim, std::uint32_t seen, float *mean,
                float *square) {
  const V weight = V::broadcast(1.0f / static_cast<float>(seen + 1)),
          scale = V::broadcast(row_scale);
  for (std::uint32_t c = 0; c < dim; c += kLanes) {
    const V x = mul(load_row<V>(row, c, dim), scale);
    const V before = seen == 0 ? V::zero() : V::load(mean + c);
    const V step = sub(x, before);
    const V after = seen == 0 ? x : fma(step, weight, before);
    store(mean + c, after);
    if (square == nullptr) continue;
    store(square + c, seen == 0 ? V::zero() : fma(step, sub(x, after), V::load(square + c)));
  }
}

template <class V>
void page_append(const Rows &rows, std::uint32_t count, std::uint32_t dim, std::uint32_t seen,
                 float *mean, float *square) {
  with_type(rows.type, [&](auto element) {
    using T = decltype(element);
    for (std::uint32_t i = 0; i < count; ++i)
      append_row<V>(row_of<T>(rows, i), scale_of(rows, i), dim, seen + i, mean, square);
  });
}

template <class V>
void page_deviation(const float *square, std::uint32_t dim, std::uint32_t count, float *out) {
  const V weight = V::broadcast(1.0f / static_cast<float>(count));
  for (std::uint32_t c = 0; c < dim; c += kLanes)
    store(out + c, sqrt(max(V::zero(), mul(V::load(square + c), weight))));
}

template <class V, class T>
void widen_bounds(const T *row, float row_scale, std::uint32_t dim, bool first, F16 *low,
                  F16 *high) {
  const V scale = V::broadcast(row_scale);
  for (std::uint32_t c = 0; c < dim; c += kLanes) {
    const V x = mul(load_row<V>(row, c, dim), scale);
    store_down(low + c, first ? x : min(x, V::load(low + c)));
    store_up(high + c, first ? x : max(x, V::load(high + c)));
  }
}

template <class V>
void append_bounds(const Rows &rows, std::uint32_t count, std::uint32_t dim, bool first, F16 *low,
                   F16 *high) {
  with_type(rows.type, [&](auto element) {
    using T = decltype(element);
    for (std::uint32_t i = 0; i < count; ++i)
      widen_bounds<V>(row_of<T>(rows, i), scale_of(rows, i), dim, first && i == 0, low, high);
  });
}

// out = f(a, b), element by element; out may be a or b.
template <class V, class F>
void combine(const float *a, const float *b, std::size_t n, float *out, F f) {
  std::size_t i = 0;
  for (; i + kLanes <= n; i += kLanes) store(out + i, f(V::load(a + i), V::load(b + i)));
  if (i < n) store_part(out + i, f(load_part<V>(a + i, n - i), load_part<V>(b + i, n - i)), n - i);
}

template <class V>
void tail_logits(const float *dot, const float *quadratic, std::size_t n, float scale,
                 float log_tokens, float *out) {
  const V s = V::broadcast(scale), half = V::broadcast(0.5f * (scale * scale)),
          one = V::broadcast(1.0f);
  const V tokens = V::broadcast(log_tokens);
  combine<V>(dot, quadratic, n, out,
             [=](V d, V q) { return fma(s, d, add(log(fma(half, q, one)), tokens)); });
}

template <class V>
void page_peaks(const float *dot, const float *quadratic, std::size_t n, float scale,
                float deviations, float *out) {
  const V s = V::broadcast(scale), half = V::broadcast(0.5f), twice = V::broadcast(2 * deviations);
  combine<V>(dot, quadratic, n, out,
             [=](V d, V q) { return mul(s, fma(half, mul(twice, sqrt(q)), d)); });
}

template <class V>
void page_scores(const float *dot, const float *absolute, std::size_t n, float scale, float *out) {
  const V s = V::broadcast(scale), half = V::broadcast(0.5f);
  combine<V>(dot, absolute, n, out, [=](V d, V a) { return mul(s, fma(half, a, d)); });
}

template <class V>
constexpr PageKernels page_kernels = {page_append<V>,     page_deviation<V>, append_bounds<V>,
                                      page_statistics<V, Kept::kHalves>, page_statistics<V, Kept::kCodes>,
                                      coded_values<V>,    page_bounds<V>,    tail_logits<V>,
                                      page_peaks<V>,      page_scores<V>};

}  // namespace
}  // namespace kvsift

#pragma once

#include "kernels/array_kernels.h"
#include "kernels/exp.h"
#include "kernels/load_part.h"

namespace kvsift {
namespace {

template <class V>
float array_max(const float *x, std::size_t n) {
  const float least = -__builtin_inff();
  V m = V::broadcast(least);
  std::size_t i = 0;
  for (; i + kLanes <= n; i += kLanes) m = max(m, V::load(x + i));
  if (i < n) m = max(m, load_filled<V>(x + i, n - i, least));
  return reduce_max(m);
}

template <class V>
float array_sum(const float *x, std::size_t n) {
  V s = V::zero();
  std::size_t i = 0;
  for (; i + kLanes <= n; i += kLanes) s = add(s, V::load(x + i));
  if (i < n) s = add(s, load_part<V>(x + i, n - i));
  return reduce_add(s);
}

// Counts are whole numbers that a float holds exactly.
template <class V>
std::uint32_t count_above(const float *x, std::size_t n, float bound) {
  constexpr std::size_t kChains = 4;
  const V least = V::broadcast(bound), one = V::broadcast(1.0f);
  const auto counts = [=](V u) { return where_less(least, u, one, V::zero()); };
  V sum[kChains];
  for (V &s : sum) s = V::zero();
  std::size_t i = 0;
  for (; i + kChains * kLanes <= n; i += kChains * kLanes)
    each<kChains>([&](std::uint32_t k) { sum[k] = add(sum[k], counts(V::load(x + i + k * kLanes))); });
  for (; i + kLanes <= n; i += kLanes) sum[0] = add(sum[0], counts(V::load(x + i)));
  if (i < n) sum[0] = add(sum[0], counts(load_filled<V>(x + i, n - i, bound)));
  const V all = add(add(sum[0], sum[1]), add(sum[2], sum[3]));
  return static_cast<std::uint32_t>(reduce_add(all));
}

template <class V>
std::uint32_t places_above(const float *x, std::size_t n, float bound, std::uint32_t first,
                           std::uint32_t *out) {
  const V least = V::broadcast(bound);
  std::uint32_t count = 0;
  for (std::size_t i = 0; i < n; i += kLanes) {
    const V u = n - i < kLanes ? load_filled<V>(x + i, n - i, bound) : V::load(x + i);
    for (std::uint32_t bits = less_bits(least, u); bits != 0; bits &= bits - 1)
      out[count++] = first + static_cast<std::uint32_t>(i) + static_cast<std::uint32_t>(__builtin_ctz(bits));
  }
  return count;
}

// Largest and least may miss a NaN; a sum does not.
template <class V>
bool array_within(const float *x, std::size_t n, float low, float high) {
  constexpr std::size_t kChains = 4;
  V most[kChains], least[kChains], sum[kChains];
  each<kChains>([&](std::uint32_t k) {
    most[k] = V::broadcast(low);
    least[k] = V::broadcast(__builtin_inff());
    sum[k] = V::zero();
  });
  const auto take = [&](std::uint32_t k, V u) {
    most[k] = max(u, most[k]);
    least[k] = min(u, least[k]);
    sum[k] = add(sum[k], u);
  };
  std::size_t i = 0;
  for (; i + kChains * kLanes <= n; i += kChains * kLanes)
    each<kChains>([&](std::uint32_t k) { take(k, V::load(x + i + k * kLanes)); });
  for (; i + kLanes <= n; i += kLanes) take(0, V::load(x + i));
  if (i < n) take(0, load_filled<V>(x + i, n - i, low));
  const V all = add(add(sum[0], sum[1]), add(sum[2], sum[3]));
  const V top = max(max(most[0], most[1]), max(most[2], most[3]));
  const V bottom = min(min(least[0], least[1]), min(least[2], least[3]));
  const float total = reduce_add(all);
  return total == total && reduce_max(top) < high && -reduce_max(sub(V::zero(), bottom)) >= low;
}

// y = f(x), element by element.
template <class V, class F>
void map_array(const float *x, float *y, std::size_t n, F f) {
  std::size_t i = 0;
  for (; i + kLanes <= n; i += kLanes) store(y + i, f(V::load(x + i), V::load(y + i)));
  if (i < n) store_part(y + i, f(load_part<V>(x + i, n - i), load_part<V>(y + i, n - i)), n - i);
}

template <class V>
void array_axpby(float a, float *y, float b, const float *x, std::size_t n) {
  const V va = V::broadcast(a), vb = V::broadcast(b);
  map_array<V>(x, y, n, [=](V u, V w) { return fma(va, w, mul(vb, u)); });
}

// Rows times their factors, joined from the first on, then finished.
template <class V, class Join, class Finish>
void join_rows(const float *rows, std::size_t stride, std::uint32_t count, const float *factors, float *out, std::size_t n,
               Join join, Finish finish) {
  const auto joined = [&](auto load) {
    V all = mul(load(rows), V::broadcast(factors[0]));
    for (std::uint32_t r = 1; r < count; ++r) all = join(all, mul(load(rows + r * stride), V::broadcast(factors[r])));
    return finish(all);
  };
  std::size_t i = 0;
  for (; i + kLanes <= n; i += kLanes) store(out + i, joined([=](const float *row) { return V::load(row + i); }));
  if (i < n) store_part(out + i, joined([=](const float *row) { return load_part<V>(row + i, n - i); }), n - i);
}

template <class V>
void array_mean(const float *rows, std::size_t stride, std::uint32_t count, const float *factors, float *out, std::size_t n) {
  const V part = V::broadcast(1.0f / static_cast<float>(count));
  join_rows<V>(rows, stride, count, factors, out, n, [](V a, V b) { return add(a, b); }, [=](V all) { return mul(part, all); });
}

template <class V>
void array_largest(const float *rows, std::size_t stride, std::uint32_t count, const float *factors, float *out, std::size_t n) {
  join_rows<V>(rows, stride, count, factors, out, n, [](V a, V b) { return max(b, a); }, [](V all) { return all; });
}

template <class V>
void array_exp(const float *x, float from, float *y, std::size_t n) {
  const V v = V::broadcast(from);
  map_array<V>(x, y, n, [=](V u, V) { return exp(sub(u, v)); });
}

template <class V>
void array_log(const float *x, float *y, std::size_t n) {
  map_array<V>(x, y, n, [](V u, V) { return log(u); });
}

template <class V>
void array_to_half(const float *x, F16 *y, std::size_t n) {
  std::size_t i = 0;
  for (; i + kLanes <= n; i += kLanes) store(y + i, V::load(x + i));
  if (i == n) return;
  F16 part[kLanes];
  store(part, load_part<V>(x + i, n - i));
  __builtin_memcpy(y + i, part, (n - i) * sizeof(F16));
}

template <class V>
void array_from_half(const F16 *x, float *y, std::size_t n) {
  std::size_t i = 0;
  for (; i + kLanes <= n; i += kLanes) store(y + i, V::load(x + i));
  if (i < n) store_part(y + i, load_part<V>(x + i, n - i), n - i);
}

template <class V>
V nearest(V x) {
  return sub(add(x, V::broadcast(kRound)), V::broadcast(kRound));
}

template <class V>
float array_to_int8(const float *x, std::int8_t *y, std::size_t n) {
  V m = V::zero();
  std::size_t i = 0;
  for (; i + kLanes <= n; i += kLanes) m = max(m, abs(V::load(x + i)));
  if (i < n) m = max(m, abs(load_part<V>(x + i, n - i)));
  const float largest = reduce_max(m);
  const float scale = largest / 127.0f;
  // A scale too small to divide by stands for a row of zeros.
  const V inverse = V::broadcast(scale < 0x1p-120f ? 0.0f : 1.0f / scale);
  for (i = 0; i + kLanes <= n; i += kLanes) store(y + i, nearest(mul(V::load(x + i), inverse)));
  if (i < n) {
    std::int8_t part[kLanes];
    store(part, nearest(mul(load_part<V>(x + i, n - i), inverse)));
    __builtin_memcpy(y + i, part, n - i);
  }
  return scale;
}

template <class V>
void widen_rows(const Rows &rows, std::uint32_t count, std::uint32_t dim, float *out) {
  with_type(rows.type, [&](auto element) {
    using T = decltype(element);
    for (std::uint32_t i = 0; i < count; ++i, out += padded_dim(dim)) {
      const T *row = row_of<T>(rows, i);
      const V scale = V::broadcast(scale_of(rows, i));
      std::uint32_t c = 0;
      for (; c + kLanes <= dim; c += kLanes) store(out + c, mul(V::load(row + c), scale));
      if (c < dim) store(out + c, mul(load_part<V>(row + c, dim - c), scale));
    }
  });
}

// x - x is zero for finite x and NaN otherwise.
template <class V>
bool rows_finite(const Rows &rows, std::uint32_t count, std::uint32_t dim) {
  return with_type(rows.type, [&](auto element) {
    using T = decltype(element);
    V sum = V::zero();
    for (std::uint32_t i = 0; i < count; ++i) {
      const T *row = row_of<T>(rows, i);
      const V scale = V::broadcast(scale_of(rows, i));
      sum = add(sum, sub(scale, scale));
      std::uint32_t c = 0;
      for (; c + kLanes <= dim; c += kLanes) {
        const V x = V::load(row + c);
        sum = add(sum, sub(x, x));
      }
      if (c == dim) continue;
      const V x = load_part<V>(row + c, dim - c);
      sum = add(sum, sub(x, x));
    }
    return reduce_add(sum) == 0.0f;
  });
}

template <class V>
constexpr ArrayKernels array_kernels = {
    array_max<V>,     array_sum<V>,  count_above<V>,   places_above<V>,    array_within<V>,
    array_axpby<V>,   array_mean<V>, array_largest<V>, array_exp<V>,       array_log<V>,
    array_to_half<V>, array_from_half<V>, array_to_int8<V>, widen_rows<V>, rows_finite<V>};

}  // namespace
}  // namespace kvsift

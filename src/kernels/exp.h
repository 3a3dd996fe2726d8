// exp and log over a vector class: one order of operations, hence the same bits on every level.
#pragma once

#include "core/both.h"

namespace kvsift {
namespace {

// Adding and taking away 1.5 * 2^23 rounds to a whole number, which the low bits of the sum then
// hold.
constexpr float kRound = 12582912.0f;
constexpr float kLn2High = 0x1.62e4p-1f, kLn2Low = 0x1.7f7d1cp-20f;

// Within 1 ulp in [-86.9, 88.72]; zero below, infinity above and for NaN (whose bits scale_exponent could make a finite number).
template <class V>
KVSIFT_BOTH V exp(V x) {
  const V round = V::broadcast(kRound);
  const V low = V::broadcast(-86.9f), beyond = V::broadcast(0x1.62e14ap+6f);  // the number after 88.72
  const V shifted = fma(x, V::broadcast(1.44269504f), round);
  const V n = sub(shifted, round);
  const V r = fma(n, V::broadcast(-kLn2Low), fma(n, V::broadcast(-kLn2High), x));
  V p = V::broadcast(0x1.6d43b4p-10f);
  p = fma(p, r, V::broadcast(0x1.120be8p-7f));
  p = fma(p, r, V::broadcast(0x1.5554e8p-5f));
  p = fma(p, r, V::broadcast(0x1.5554dcp-3f));
  p = fma(p, r, V::broadcast(0.5f));
  p = fma(mul(p, r), r, r);
  p = add(p, V::broadcast(1.0f));
  const V result = where_less(x, low, V::zero(), scale_exponent(p, shifted));
  return where_less(x, beyond, result, V::broadcast(__builtin_inff()));
}

// Within 1 ulp or so for normal x > 0; minus infinity below the smallest normal number.
template <class V>
KVSIFT_BOTH V log(V x) {
  const V one = V::broadcast(1.0f);
  const V e = exponent(x);
  const V f = sub(scale_exponent(x, sub(V::broadcast(kRound), e)), one);
  V p = V::broadcast(-0.0810156855f);
  p = fma(p, f, V::broadcast(0.127123073f));
  p = fma(p, f, V::broadcast(-0.129722387f));
  p = fma(p, f, V::broadcast(0.142021745f));
  p = fma(p, f, V::broadcast(-0.166422471f));
  p = fma(p, f, V::broadcast(0.200014681f));
  p = fma(p, f, V::broadcast(-0.25000298f));
  p = fma(p, f, V::broadcast(0.333333284f));
  const V square = mul(f, f);
  p = fma(mul(p, f), square, mul(square, V::broadcast(-0.5f)));
  p = add(fma(e, V::broadcast(kLn2Low), p), f);
  p = fma(e, V::broadcast(kLn2High), p);
  const V result = where_less(x, V::broadcast(0x1p-126f), V::broadcast(-__builtin_inff()), p);
  return where_less(V::broadcast(0x1.fffffep127f), x, x, result);
}

}  // namespace
}  // namespace kvsift

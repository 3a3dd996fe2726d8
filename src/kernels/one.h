// One lane: exp and log of single numbers, with the bits that the vector kernels give.
#pragma once

#include "core/half.h"
#include "kernels/exp.h"

namespace kvsift {
namespace {

struct One {
  float v;
  static One zero() { return {0.0f}; }
  static One broadcast(float x) { return {x}; }
};
inline One add(One a, One b) { return {a.v + b.v}; }
inline One sub(One a, One b) { return {a.v - b.v}; }
inline One mul(One a, One b) { return {a.v * b.v}; }
inline One fma(One a, One b, One c) { return {__builtin_fmaf(a.v, b.v, c.v)}; }
inline One where_less(One a, One b, One x, One y) { return a.v < b.v ? x : y; }
inline One scale_exponent(One a, One t) {
  return {float_of_bits(bits_of_float(a.v) + (bits_of_float(t.v) << 23))};
}
inline One exponent(One a) {
  return {static_cast<float>(static_cast<std::int32_t>(bits_of_float(a.v) - 0x3f3504f3u) >> 23)};
}

inline float exp1(float x) { return exp(One{x}).v; }
inline float log1(float x) { return log(One{x}).v; }

}  // namespace
}  // namespace kvsift

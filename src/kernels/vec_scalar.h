// 16 float lanes in plain C++: the reference that the other vector classes repeat bit for bit.
#pragma once

#include "core/half.h"
#include "kernels/element.h"

namespace kvsift {
namespace {

// 16 int8 numbers, widened.
struct ScalarCodes {
  static constexpr std::uint32_t kCount = kLanes;
  static constexpr int kRowOffset = 0;  // that rows come with
  std::int32_t code[kCount];

  static ScalarCodes query(const std::int8_t *p) { return row(p, kCount); }
  // n: a multiple of kLanes, at most kCount.
  static ScalarCodes row(const std::int8_t *p, std::uint32_t) {
    ScalarCodes r;
    for (std::uint32_t i = 0; i < kCount; ++i) r.code[i] = p[i];
    return r;
  }
  // x^2 / kSquareUnit, to the nearest.
  static ScalarCodes squares(const std::int8_t *p, std::uint32_t n) {
    ScalarCodes r = row(p, n);
    for (std::int32_t &x : r.code) x = (x * x + kSquareUnit / 2) >> kSquareBits;
    return r;
  }
};
struct ScalarSums {
  std::int32_t v;
  static ScalarSums start(std::int32_t first) { return {first}; }
};
inline ScalarSums add_products(const ScalarCodes &query, const ScalarCodes &row, ScalarSums sum) {
  for (std::uint32_t i = 0; i < ScalarCodes::kCount; ++i) sum.v += query.code[i] * row.code[i];
  return sum;
}
// Four sums as floats.
inline void total4(ScalarSums a, ScalarSums b, ScalarSums c, ScalarSums d, float *out) {
  out[0] = static_cast<float>(a.v);
  out[1] = static_cast<float>(b.v);
  out[2] = static_cast<float>(c.v);
  out[3] = static_cast<float>(d.v);
}

// Columns of two int8 rows, to be weighed together.
struct ScalarPair {
  static constexpr std::uint32_t kColumns = kLanes;
  std::int32_t a[kColumns], b[kColumns];

  // n: columns there are, a multiple of kLanes.
  static ScalarPair load(const std::int8_t *a, const std::int8_t *b, std::uint32_t) {
    ScalarPair r;
    for (std::uint32_t i = 0; i < kColumns; ++i) r.a[i] = a[i], r.b[i] = b[i];
    return r;
  }
};
struct ScalarPairWeights {
  std::int32_t a, b;
  explicit ScalarPairWeights(const std::int16_t *code) : a(code[0]), b(code[1]) {}
};
struct ScalarPairSums {
  std::int32_t v[kLanes];
  static ScalarPairSums zero() { return {}; }
};
inline ScalarPairSums add_pair(const ScalarPair &x, ScalarPairWeights w, const ScalarPairSums &sum) {
  ScalarPairSums r;
  for (std::uint32_t i = 0; i < kLanes; ++i) r.v[i] = sum.v[i] + x.a[i] * w.a + x.b[i] * w.b;
  return r;
}
inline void to_floats(const ScalarPairSums &sum, float *out) {
  for (std::uint32_t i = 0; i < kLanes; ++i) out[i] = static_cast<float>(sum.v[i]);
}

struct Scalar {
  using RowPair = ScalarPair;
  using PairWeights = ScalarPairWeights;
  using PairSums = ScalarPairSums;
  static constexpr std::uint32_t kPairTile = 1;  // RowPairs worked on at a time
  using Codes = ScalarCodes;
  using Sums = ScalarSums;
  static constexpr std::uint32_t kQueryTile = 1, kTokenTile = 4, kDimTile = 1;
  using Piece = Scalar;
  static constexpr std::uint32_t kPieces = 1;
  static constexpr bool kPairs = false;
  static constexpr std::uint32_t kConvColumns = 1, kConvHalves = 1;
  float lane[kLanes];

  template <class F>
  static Scalar make(F f) {
    Scalar r;
    for (std::uint32_t i = 0; i < kLanes; ++i) r.lane[i] = f(i);
    return r;
  }

  static Scalar zero() { return broadcast(0.0f); }
  static Scalar broadcast(float x) {
    return make([=](std::uint32_t) { return x; });
  }
  static Scalar load(const float *p) {
    return make([=](std::uint32_t i) { return p[i]; });
  }
  static Scalar load(const F16 *p) {
    return make([=](std::uint32_t i) { return float_of_half(p[i].bits); });
  }
  static Scalar load(const BF16 *p) {
    return make([=](std::uint32_t i) { return float_of_bfloat(p[i].bits); });
  }
  static Scalar load(const std::int8_t *p) {
    return make([=](std::uint32_t i) { return static_cast<float>(p[i]); });
  }
};

inline void store(float *p, const Scalar &a) {
  for (std::uint32_t i = 0; i < kLanes; ++i) p[i] = a.lane[i];
}
inline void store(F16 *p, const Scalar &a) {
  for (std::uint32_t i = 0; i < kLanes; ++i) p[i].bits = half_of_float(a.lane[i]);
}
// Lanes must be whole numbers within the type.
inline void store(std::int8_t *p, const Scalar &a) {
  for (std::uint32_t i = 0; i < kLanes; ++i) p[i] = static_cast<std::int8_t>(a.lane[i]);
}
inline void store(std::int16_t *p, const Scalar &a) {
  for (std::uint32_t i = 0; i < kLanes; ++i) p[i] = static_cast<std::int16_t>(a.lane[i]);
}

// The half next to `h` on the side of minus infinity.
inline std::uint16_t half_below(std::uint16_t h) {
  if (h == 0) return 0x8001u;
  return static_cast<std::uint16_t>((h & 0x8000u) != 0 ? h + 1 : h - 1);
}
inline void store_down(F16 *p, const Scalar &a) {
  for (std::uint32_t i = 0; i < kLanes; ++i) {
    const std::uint16_t h = half_of_float(a.lane[i]);
    p[i].bits = float_of_half(h) > a.lane[i] ? half_below(h) : h;
  }
}
inline void store_up(F16 *p, const Scalar &a) {
  for (std::uint32_t i = 0; i < kLanes; ++i) {
    const std::uint16_t h = half_of_float(a.lane[i]);
    const auto above = static_cast<std::uint16_t>(half_below(h ^ 0x8000u) ^ 0x8000u);
    p[i].bits = float_of_half(h) < a.lane[i] ? above : h;
  }
}

inline Scalar add(const Scalar &a, const Scalar &b) {
  return Scalar::make([&](std::uint32_t i) { return a.lane[i] + b.lane[i]; });
}
inline Scalar sub(const Scalar &a, const Scalar &b) {
  return Scalar::make([&](std::uint32_t i) { return a.lane[i] - b.lane[i]; });
}
inline Scalar mul(const Scalar &a, const Scalar &b) {
  return Scalar::make([&](std::uint32_t i) { return a.lane[i] * b.lane[i]; });
}
inline Scalar fma(const Scalar &a, const Scalar &b, const Scalar &c) {
  return Scalar::make(
      [&](std::uint32_t i) { return __builtin_fmaf(a.lane[i], b.lane[i], c.lane[i]); });
}
// The second operand wins where the two compare equal or one is NaN.
inline Scalar max(const Scalar &a, const Scalar &b) {
  return Scalar::make(
      [&](std::uint32_t i) { return a.lane[i] > b.lane[i] ? a.lane[i] : b.lane[i]; });
}
inline Scalar min(const Scalar &a, const Scalar &b) {
  return Scalar::make(
      [&](std::uint32_t i) { return a.lane[i] < b.lane[i] ? a.lane[i] : b.lane[i]; });
}
inline Scalar abs(const Scalar &a) {
  return Scalar::make([&](std::uint32_t i) { return __builtin_fabsf(a.lane[i]); });
}
inline Scalar sqrt(const Scalar &a) {
  return Scalar::make([&](std::uint32_t i) { return __builtin_sqrtf(a.lane[i]); });
}
// a < b ? x : y
inline Scalar where_less(const Scalar &a, const Scalar &b, const Scalar &x, const Scalar &y) {
  return Scalar::make(
      [&](std::uint32_t i) { return a.lane[i] < b.lane[i] ? x.lane[i] : y.lane[i]; });
}
// Bit i: lane i of a lies below that of b.
inline std::uint32_t less_bits(const Scalar &a, const Scalar &b) {
  std::uint32_t bits = 0;
  for (std::uint32_t i = 0; i < kLanes; ++i) bits |= std::uint32_t{a.lane[i] < b.lane[i]} << i;
  return bits;
}
// a * 2^n, n in the low bits of t; the result must be a normal number.
inline Scalar scale_exponent(const Scalar &a, const Scalar &t) {
  return Scalar::make([&](std::uint32_t i) {
    return float_of_bits(bits_of_float(a.lane[i]) + (bits_of_float(t.lane[i]) << 23));
  });
}
// e with a / 2^e in [sqrt(1/2), sqrt(2)), for normal positive a.
inline Scalar exponent(const Scalar &a) {
  return Scalar::make([&](std::uint32_t i) {
    const std::uint32_t offset = bits_of_float(a.lane[i]) - 0x3f3504f3u;
    return static_cast<float>(static_cast<std::int32_t>(offset) >> 23);
  });
}

inline float reduce_add(Scalar a) {
  for (std::uint32_t half = kLanes / 2; half > 0; half /= 2)
    for (std::uint32_t i = 0; i < half; ++i) a.lane[i] += a.lane[i + half];
  return a.lane[0];
}
inline float reduce_max(Scalar a) {
  for (std::uint32_t half = kLanes / 2; half > 0; half /= 2)
    for (std::uint32_t i = 0; i < half; ++i)
      a.lane[i] = a.lane[i] > a.lane[i + half] ? a.lane[i] : a.lane[i + half];
  return a.lane[0];
}
inline void reduce_add4(const Scalar &a, const Scalar &b, const Scalar &c, const Scalar &d,
                        float *out) {
  out[0] = reduce_add(a);
  out[1] = reduce_add(b);
  out[2] = reduce_add(c);
  out[3] = reduce_add(d);
}
inline void reduce_max4(const Scalar &a, const Scalar &b, const Scalar &c, const Scalar &d,
                        float *out) {
  out[0] = reduce_max(a);
  out[1] = reduce_max(b);
  out[2] = reduce_max(c);
  out[3] = reduce_max(d);
}

}  // namespace
}  // namespace kvsift

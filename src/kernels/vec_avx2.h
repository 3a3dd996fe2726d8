// 16 float lanes in two AVX registers. Compiled with -mavx2 -mfma -mf16c only.
#pragma once

#include <immintrin.h>

#include "kernels/element.h"

namespace kvsift {
namespace {

struct Avx2Half {
  __m256 v;

  static Avx2Half zero() { return {_mm256_setzero_ps()}; }
  static Avx2Half load(const float *p) { return {_mm256_loadu_ps(p)}; }
  static Avx2Half load(const F16 *p) {
    return {_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i *>(p)))};
  }
  static Avx2Half load(const BF16 *p) {
    const __m128i bits = _mm_loadu_si128(reinterpret_cast<const __m128i *>(p));
    return {_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16))};
  }
  static Avx2Half load(const std::int8_t *p) {
    const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i *>(p));
    return {_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes))};
  }
};
inline Avx2Half add(Avx2Half a, Avx2Half b) { return {_mm256_add_ps(a.v, b.v)}; }
inline Avx2Half mul(Avx2Half a, Avx2Half b) { return {_mm256_mul_ps(a.v, b.v)}; }
inline Avx2Half fma(Avx2Half a, Avx2Half b, Avx2Half c) { return {_mm256_fmadd_ps(a.v, b.v, c.v)}; }
inline __attribute__((always_inline)) Avx2Half in_register(Avx2Half a) {
  __asm__("" : "+x"(a.v));
  return a;
}
inline Avx2Half abs(Avx2Half a) { return {_mm256_andnot_ps(_mm256_set1_ps(-0.0f), a.v)}; }

// Eight sums in memory, as registers are too few.
struct Avx2DotSums {
  using Half = Avx2Half;
  alignas(32) float lane[8][kLanes];

  void put(std::uint32_t s, std::uint32_t half, Avx2Half a) { _mm256_store_ps(lane[s] + half * 8, a.v); }
  __m256 load(std::uint32_t s, std::uint32_t half) const { return _mm256_load_ps(lane[s] + half * 8); }
};
inline void clear(Avx2DotSums &sums) { sums = Avx2DotSums{}; }
// Each by the tree of one, in eight pieces: what is made of two sums lies where the first was.
inline __attribute__((always_inline)) void reduce_piece(std::uint32_t piece, Avx2DotSums &s) {
  if (piece < 4) {
    const std::uint32_t i = 2 * piece;
    const __m256 a = _mm256_add_ps(s.load(i, 0), s.load(i, 1)), b = _mm256_add_ps(s.load(i + 1, 0), s.load(i + 1, 1));
    s.put(i, 0, {_mm256_add_ps(_mm256_permute2f128_ps(a, b, 0x20), _mm256_permute2f128_ps(a, b, 0x31))});
  } else if (piece < 6) {
    const std::uint32_t i = 4 * (piece - 4);
    const __m256 a = s.load(i, 0), b = s.load(i + 2, 0);
    s.put(i, 0, {_mm256_add_ps(_mm256_shuffle_ps(a, b, 0x44), _mm256_shuffle_ps(a, b, 0xee))});
  } else if (piece == 6) {
    const __m256 a = s.load(0, 0), b = s.load(4, 0);
    s.put(0, 0, {_mm256_add_ps(_mm256_shuffle_ps(a, b, 0x88), _mm256_shuffle_ps(a, b, 0xdd))});
  }
}
// The sums 2 * k and 2 * k + 1 to out + k * stride.
inline __attribute__((always_inline)) void put_reduced(const Avx2DotSums &s, float *out, std::size_t stride) {
  const __m128 first = _mm_load_ps(s.lane[0]), second = _mm_load_ps(s.lane[0] + 4);
  const __m128 low = _mm_unpacklo_ps(first, second), high = _mm_unpackhi_ps(first, second);
  _mm_storel_pi(reinterpret_cast<__m64 *>(out), low);
  _mm_storeh_pi(reinterpret_cast<__m64 *>(out + stride), low);
  _mm_storel_pi(reinterpret_cast<__m64 *>(out + 2 * stride), high);
  _mm_storeh_pi(reinterpret_cast<__m64 *>(out + 3 * stride), high);
}

// 16 int8 numbers, widened.
struct Avx2Codes {
  static constexpr std::uint32_t kCount = 16;
  static constexpr int kRowOffset = 0;
  __m256i v;

  static Avx2Codes query(const std::int8_t *p) { return row(p, kCount); }
  static Avx2Codes row(const std::int8_t *p, std::uint32_t) {
    return {_mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i *>(p)))};
  }
  static Avx2Codes squares(const std::int8_t *p, std::uint32_t n) {
    const __m256i x = row(p, n).v;
    return {_mm256_mulhrs_epi16(x, _mm256_slli_epi16(x, 15 - kSquareBits))};
  }
};
struct Avx2Sums {
  __m256i v;
  static Avx2Sums start(std::int32_t first) {
    return {_mm256_zextsi128_si256(_mm_cvtsi32_si128(first))};
  }
};
inline Avx2Sums add_products(Avx2Codes query, Avx2Codes row, Avx2Sums sum) {
  return {_mm256_add_epi32(sum.v, _mm256_madd_epi16(query.v, row.v))};
}
// Four sums as floats.
inline void total4(Avx2Sums a, Avx2Sums b, Avx2Sums c, Avx2Sums d, float *out) {
  const __m256i x = _mm256_hadd_epi32(_mm256_hadd_epi32(a.v, b.v), _mm256_hadd_epi32(c.v, d.v));
  const __m128i y = _mm_add_epi32(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1));
  _mm_storeu_ps(out, _mm_cvtepi32_ps(y));
}

// Columns of two int8 rows as pairs of int16: 0 to 3 and 8 to 11, 4 to 7 and 12 to 15.
struct Avx2Pair {
  static constexpr std::uint32_t kColumns = 16;
  __m256i lo, hi;

  static Avx2Pair load(const std::int8_t *a, const std::int8_t *b, std::uint32_t n) {
    const __m256i x = Avx2Codes::row(a, n).v, y = Avx2Codes::row(b, n).v;
    return {_mm256_unpacklo_epi16(x, y), _mm256_unpackhi_epi16(x, y)};
  }
};
struct Avx2PairWeights {
  __m256i v;
  explicit Avx2PairWeights(const std::int16_t *code) {
    std::int32_t both;
    __builtin_memcpy(&both, code, sizeof both);
    v = _mm256_set1_epi32(both);
  }
};
struct Avx2PairSums {
  __m256i lo, hi;
  static Avx2PairSums zero() { return {_mm256_setzero_si256(), _mm256_setzero_si256()}; }
};
inline Avx2PairSums add_pair(Avx2Pair x, Avx2PairWeights w, Avx2PairSums sum) {
  return {_mm256_add_epi32(sum.lo, _mm256_madd_epi16(x.lo, w.v)),
          _mm256_add_epi32(sum.hi, _mm256_madd_epi16(x.hi, w.v))};
}
inline void to_floats(Avx2PairSums sum, float *out) {
  _mm256_storeu_ps(out, _mm256_cvtepi32_ps(_mm256_permute2x128_si256(sum.lo, sum.hi, 0x20)));
  _mm256_storeu_ps(out + 8, _mm256_cvtepi32_ps(_mm256_permute2x128_si256(sum.lo, sum.hi, 0x31)));
}

struct Avx2 {
  using RowPair = Avx2Pair;
  using PairWeights = Avx2PairWeights;
  using PairSums = Avx2PairSums;
  static constexpr std::uint32_t kPairTile = 1;
  using Codes = Avx2Codes;
  using Sums = Avx2Sums;
  static constexpr std::uint32_t kQueryTile = 4, kTokenTile = 2, kDimTile = 1;
  using Piece = Avx2Half;
  static constexpr std::uint32_t kPieces = 2;
  static constexpr bool kPairs = true;
  using DotSums = Avx2DotSums;
  static constexpr std::uint32_t kConvColumns = 4, kConvHalves = 1;
  __m256 lo, hi;

  static Avx2 join(Avx2Half a, Avx2Half b) { return {a.v, b.v}; }
  static Avx2 zero() { return broadcast(0.0f); }
  static Avx2 broadcast(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
  template <class T>
  static Avx2 load(const T *p) {
    return {Avx2Half::load(p).v, Avx2Half::load(p + 8).v};
  }
};

inline void store(float *p, Avx2 a) {
  _mm256_storeu_ps(p, a.lo);
  _mm256_storeu_ps(p + 8, a.hi);
}
template <int Rounding>
inline void store_half(F16 *p, Avx2 a) {
  auto *q = reinterpret_cast<__m128i *>(p);
  _mm_storeu_si128(q, _mm256_cvtps_ph(a.lo, Rounding | _MM_FROUND_NO_EXC));
  _mm_storeu_si128(q + 1, _mm256_cvtps_ph(a.hi, Rounding | _MM_FROUND_NO_EXC));
}
inline void store(F16 *p, Avx2 a) { store_half<_MM_FROUND_TO_NEAREST_INT>(p, a); }
inline void store_down(F16 *p, Avx2 a) { store_half<_MM_FROUND_TO_NEG_INF>(p, a); }
inline void store_up(F16 *p, Avx2 a) { store_half<_MM_FROUND_TO_POS_INF>(p, a); }
inline void store(std::int8_t *p, Avx2 a) {
  const __m256i lo = _mm256_cvttps_epi32(a.lo), hi = _mm256_cvttps_epi32(a.hi);
  const __m128i lo16 = _mm_packs_epi32(_mm256_castsi256_si128(lo), _mm256_extracti128_si256(lo, 1));
  const __m128i hi16 = _mm_packs_epi32(_mm256_castsi256_si128(hi), _mm256_extracti128_si256(hi, 1));
  _mm_storeu_si128(reinterpret_cast<__m128i *>(p), _mm_packs_epi16(lo16, hi16));
}
inline void store(std::int16_t *p, Avx2 a) {
  const __m256i both = _mm256_packs_epi32(_mm256_cvttps_epi32(a.lo), _mm256_cvttps_epi32(a.hi));
  _mm256_storeu_si256(reinterpret_cast<__m256i *>(p), _mm256_permute4x64_epi64(both, 0xd8));
}

inline Avx2 add(Avx2 a, Avx2 b) { return {_mm256_add_ps(a.lo, b.lo), _mm256_add_ps(a.hi, b.hi)}; }
inline Avx2 sub(Avx2 a, Avx2 b) { return {_mm256_sub_ps(a.lo, b.lo), _mm256_sub_ps(a.hi, b.hi)}; }
inline Avx2 mul(Avx2 a, Avx2 b) { return {_mm256_mul_ps(a.lo, b.lo), _mm256_mul_ps(a.hi, b.hi)}; }
inline Avx2 fma(Avx2 a, Avx2 b, Avx2 c) {
  return {_mm256_fmadd_ps(a.lo, b.lo, c.lo), _mm256_fmadd_ps(a.hi, b.hi, c.hi)};
}
inline Avx2 max(Avx2 a, Avx2 b) { return {_mm256_max_ps(a.lo, b.lo), _mm256_max_ps(a.hi, b.hi)}; }
inline Avx2 min(Avx2 a, Avx2 b) { return {_mm256_min_ps(a.lo, b.lo), _mm256_min_ps(a.hi, b.hi)}; }
inline Avx2 abs(Avx2 a) {
  const __m256 sign = _mm256_set1_ps(-0.0f);
  return {_mm256_andnot_ps(sign, a.lo), _mm256_andnot_ps(sign, a.hi)};
}
inline Avx2 sqrt(Avx2 a) { return {_mm256_sqrt_ps(a.lo), _mm256_sqrt_ps(a.hi)}; }
inline Avx2 where_less(Avx2 a, Avx2 b, Avx2 x, Avx2 y) {
  return {_mm256_blendv_ps(y.lo, x.lo, _mm256_cmp_ps(a.lo, b.lo, _CMP_LT_OQ)),
          _mm256_blendv_ps(y.hi, x.hi, _mm256_cmp_ps(a.hi, b.hi, _CMP_LT_OQ))};
}
inline std::uint32_t less_bits(Avx2 a, Avx2 b) {
  const int lo = _mm256_movemask_ps(_mm256_cmp_ps(a.lo, b.lo, _CMP_LT_OQ));
  const int hi = _mm256_movemask_ps(_mm256_cmp_ps(a.hi, b.hi, _CMP_LT_OQ));
  return static_cast<std::uint32_t>(lo | hi << 8);
}
inline __m256 scale_exponent(__m256 a, __m256 t) {
  const __m256i n = _mm256_slli_epi32(_mm256_castps_si256(t), 23);
  return _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(a), n));
}
inline Avx2 scale_exponent(Avx2 a, Avx2 t) {
  return {scale_exponent(a.lo, t.lo), scale_exponent(a.hi, t.hi)};
}
inline __m256 exponent(__m256 a) {
  const __m256i offset = _mm256_sub_epi32(_mm256_castps_si256(a), _mm256_set1_epi32(0x3f3504f3));
  return _mm256_cvtepi32_ps(_mm256_srai_epi32(offset, 23));
}
inline Avx2 exponent(Avx2 a) { return {exponent(a.lo), exponent(a.hi)}; }

inline float reduce_add(Avx2 a) {
  const __m256 w = _mm256_add_ps(a.lo, a.hi);
  const __m128 x = _mm_add_ps(_mm256_castps256_ps128(w), _mm256_extractf128_ps(w, 1));
  const __m128 y = _mm_add_ps(x, _mm_movehl_ps(x, x));
  return _mm_cvtss_f32(_mm_add_ss(y, _mm_movehdup_ps(y)));
}
inline float reduce_max(Avx2 a) {
  const __m256 w = _mm256_max_ps(a.lo, a.hi);
  const __m128 x = _mm_max_ps(_mm256_castps256_ps128(w), _mm256_extractf128_ps(w, 1));
  const __m128 y = _mm_max_ps(x, _mm_movehl_ps(x, x));
  return _mm_cvtss_f32(_mm_max_ss(y, _mm_movehdup_ps(y)));
}
// Four reductions at once, each by the tree of one.
template <class Op>
inline void reduce4(Avx2 a, Avx2 b, Avx2 c, Avx2 d, float *out, Op op) {
  const __m256 wa = op(a.lo, a.hi), wb = op(b.lo, b.hi), wc = op(c.lo, c.hi), wd = op(d.lo, d.hi);
  const __m256 ac = op(_mm256_permute2f128_ps(wa, wc, 0x20), _mm256_permute2f128_ps(wa, wc, 0x31));
  const __m256 bd = op(_mm256_permute2f128_ps(wb, wd, 0x20), _mm256_permute2f128_ps(wb, wd, 0x31));
  // Now lanes are a0..a3 c0..c3 and b0..b3 d0..d3.
  const __m256 x = op(_mm256_shuffle_ps(ac, bd, 0x44), _mm256_shuffle_ps(ac, bd, 0xee));
  const __m256 y = op(_mm256_shuffle_ps(x, x, 0x88), _mm256_shuffle_ps(x, x, 0xdd));
  _mm_storeu_ps(out, _mm_movelh_ps(_mm256_castps256_ps128(y), _mm256_extractf128_ps(y, 1)));
}
inline void reduce_add4(Avx2 a, Avx2 b, Avx2 c, Avx2 d, float *out) {
  reduce4(a, b, c, d, out, [](__m256 x, __m256 y) { return _mm256_add_ps(x, y); });
}
inline void reduce_max4(Avx2 a, Avx2 b, Avx2 c, Avx2 d, float *out) {
  reduce4(a, b, c, d, out, [](__m256 x, __m256 y) { return _mm256_max_ps(x, y); });
}

}  // namespace
}  // namespace kvsift

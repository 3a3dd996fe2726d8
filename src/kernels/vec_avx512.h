// 16 float lanes in one AVX-512 register. Compiled with -mavx512{f,bw,vl,dq} only.
#pragma once

// gcc 12 takes the intrinsics' undefined operands for mistakes.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wpragmas"
#pragma GCC diagnostic ignored "-Wuninitialized"
#ifndef __clang__
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>
#pragma GCC diagnostic pop

#include "kernels/element.h"

namespace kvsift {
namespace {

#if defined(__AVX512VNNI__)
// 64 int8 numbers. The instruction takes one side unsigned: rows come with 128 added, which sums start without.
struct Avx512Codes {
  static constexpr std::uint32_t kCount = 64;
  static constexpr int kRowOffset = 128;
  __m512i v;

  static Avx512Codes query(const std::int8_t *p) { return {_mm512_loadu_si512(p)}; }
  static Avx512Codes row(const std::int8_t *p, std::uint32_t n) {
    return {_mm512_xor_si512(load(p, n), _mm512_set1_epi8(-128))};
  }
  static Avx512Codes squares(const std::int8_t *p, std::uint32_t n) {
    const __m512i x = load(p, n), low = _mm512_slli_epi16(x, 8), odd = _mm512_srai_epi16(x, 8);
    const __m512i high = _mm512_and_si512(x, _mm512_set1_epi16(-256));
    const __m512i squares = _mm512_mulhrs_epi16(low, _mm512_srai_epi16(low, 8));
    return {_mm512_or_si512(squares, _mm512_slli_epi16(_mm512_mulhrs_epi16(high, odd), 8))};
  }

 private:
  static __m512i load(const std::int8_t *p, std::uint32_t n) {
    return n == kCount ? _mm512_loadu_si512(p) : _mm512_maskz_loadu_epi8(_cvtu64_mask64((std::uint64_t{1} << n) - 1), p);
  }
};
#else
// 32 int8 numbers, widened.
struct Avx512Codes {
  static constexpr std::uint32_t kCount = 32;
  static constexpr int kRowOffset = 0;
  __m512i v;

  static Avx512Codes query(const std::int8_t *p) { return row(p, kCount); }
  static Avx512Codes row(const std::int8_t *p, std::uint32_t n) {
    if (n < kCount)
      return {_mm512_zextsi256_si512(_mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i *>(p))))};
    return {_mm512_cvtepi8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i *>(p)))};
  }
  static Avx512Codes squares(const std::int8_t *p, std::uint32_t n) {
    const __m512i x = row(p, n).v;
    return {_mm512_mulhrs_epi16(x, _mm512_slli_epi16(x, 15 - kSquareBits))};
  }
};
#endif

struct Avx512Sums {
  __m512i v;
  static Avx512Sums start(std::int32_t first) { return {_mm512_zextsi128_si512(_mm_cvtsi32_si128(first))}; }
};
inline Avx512Sums add_products(Avx512Codes query, Avx512Codes row, Avx512Sums sum) {
#if defined(__AVX512VNNI__)
  return {_mm512_dpbusd_epi32(sum.v, row.v, query.v)};
#else
  return {_mm512_add_epi32(sum.v, _mm512_madd_epi16(query.v, row.v))};
#endif
}
// Four sums as floats.
inline void total4(Avx512Sums a, Avx512Sums b, Avx512Sums c, Avx512Sums d, float *out) {
  const __m512i ab =
      _mm512_add_epi32(_mm512_unpacklo_epi32(a.v, b.v), _mm512_unpackhi_epi32(a.v, b.v));
  const __m512i cd =
      _mm512_add_epi32(_mm512_unpacklo_epi32(c.v, d.v), _mm512_unpackhi_epi32(c.v, d.v));
  const __m512i x = _mm512_add_epi32(_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd));
  const __m256i y = _mm256_add_epi32(_mm512_castsi512_si256(x), _mm512_extracti64x4_epi64(x, 1));
  const __m128i z = _mm_add_epi32(_mm256_castsi256_si128(y), _mm256_extracti128_si256(y, 1));
  _mm_storeu_ps(out, _mm_cvtepi32_ps(z));
}

// Columns of two int8 rows as pairs of int16, two groups of four columns out of four to a register.
struct Avx512Pair {
  static constexpr std::uint32_t kColumns = 32;
  __m512i lo, hi;

  static Avx512Pair load(const std::int8_t *a, const std::int8_t *b, std::uint32_t n) {
    const __m512i x = widen(a, n), y = widen(b, n);
    return {_mm512_unpacklo_epi16(x, y), _mm512_unpackhi_epi16(x, y)};
  }

 private:
  static __m512i widen(const std::int8_t *p, std::uint32_t n) {
    if (n < kColumns)
      return _mm512_zextsi256_si512(_mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i *>(p))));
    return _mm512_cvtepi8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i *>(p)));
  }
};
struct Avx512PairWeights {
  __m512i v;
  explicit Avx512PairWeights(const std::int16_t *code) {
    std::int32_t both;
    __builtin_memcpy(&both, code, sizeof both);
    v = _mm512_set1_epi32(both);
  }
};
struct Avx512PairSums {
  __m512i lo, hi;
  static Avx512PairSums zero() { return {_mm512_setzero_si512(), _mm512_setzero_si512()}; }
};
inline Avx512PairSums add_pair(Avx512Pair x, Avx512PairWeights w, Avx512PairSums sum) {
  return {_mm512_add_epi32(sum.lo, _mm512_madd_epi16(x.lo, w.v)),
          _mm512_add_epi32(sum.hi, _mm512_madd_epi16(x.hi, w.v))};
}
inline void to_floats(Avx512PairSums sum, float *out) {
  const __m512i first = _mm512_setr_epi64(0, 1, 8, 9, 2, 3, 10, 11), second = _mm512_setr_epi64(4, 5, 12, 13, 6, 7, 14, 15);
  _mm512_storeu_ps(out, _mm512_cvtepi32_ps(_mm512_permutex2var_epi64(sum.lo, first, sum.hi)));
  _mm512_storeu_ps(out + 16, _mm512_cvtepi32_ps(_mm512_permutex2var_epi64(sum.lo, second, sum.hi)));
}

struct Avx512 {
  using RowPair = Avx512Pair;
  using PairWeights = Avx512PairWeights;
  using PairSums = Avx512PairSums;
  static constexpr std::uint32_t kPairTile = 2;
  using Codes = Avx512Codes;
  using Sums = Avx512Sums;
  static constexpr std::uint32_t kQueryTile = 4, kTokenTile = 4, kDimTile = 4;
  using Piece = Avx512;
  static constexpr std::uint32_t kPieces = 1;
  static constexpr bool kPairs = true;
  static constexpr std::uint32_t kConvColumns = 8, kConvHalves = 2;
  __m512 v;

  static Avx512 zero() { return {_mm512_setzero_ps()}; }
  static Avx512 broadcast(float x) { return {_mm512_set1_ps(x)}; }
  static Avx512 load(const float *p) { return {_mm512_loadu_ps(p)}; }
  static Avx512 load(const F16 *p) {
    return {_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i *>(p)))};
  }
  static Avx512 load(const BF16 *p) {
    const __m512i wide =
        _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i *>(p)));
    return {_mm512_castsi512_ps(_mm512_slli_epi32(wide, 16))};
  }
  static Avx512 load(const std::int8_t *p) {
    return {_mm512_cvtepi32_ps(
        _mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i *>(p))))};
  }
};

// Loaded once, where gcc would load it again for each use.
inline __attribute__((always_inline)) Avx512 in_register(Avx512 a) {
  __asm__("" : "+v"(a.v));
  return a;
}

inline void store(float *p, Avx512 a) { _mm512_storeu_ps(p, a.v); }
template <int Rounding>
inline void store_half(F16 *p, Avx512 a) {
  _mm256_storeu_si256(reinterpret_cast<__m256i *>(p),
                      _mm512_cvtps_ph(a.v, Rounding | _MM_FROUND_NO_EXC));
}
inline void store(F16 *p, Avx512 a) { store_half<_MM_FROUND_TO_NEAREST_INT>(p, a); }
inline void store_down(F16 *p, Avx512 a) { store_half<_MM_FROUND_TO_NEG_INF>(p, a); }
inline void store_up(F16 *p, Avx512 a) { store_half<_MM_FROUND_TO_POS_INF>(p, a); }
inline void store(std::int8_t *p, Avx512 a) {
  _mm_storeu_si128(reinterpret_cast<__m128i *>(p), _mm512_cvtepi32_epi8(_mm512_cvttps_epi32(a.v)));
}
inline void store(std::int16_t *p, Avx512 a) {
  _mm256_storeu_si256(reinterpret_cast<__m256i *>(p), _mm512_cvtepi32_epi16(_mm512_cvttps_epi32(a.v)));
}

inline Avx512 add(Avx512 a, Avx512 b) { return {_mm512_add_ps(a.v, b.v)}; }
inline Avx512 sub(Avx512 a, Avx512 b) { return {_mm512_sub_ps(a.v, b.v)}; }
inline Avx512 mul(Avx512 a, Avx512 b) { return {_mm512_mul_ps(a.v, b.v)}; }
inline Avx512 fma(Avx512 a, Avx512 b, Avx512 c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
inline Avx512 max(Avx512 a, Avx512 b) { return {_mm512_max_ps(a.v, b.v)}; }
inline Avx512 min(Avx512 a, Avx512 b) { return {_mm512_min_ps(a.v, b.v)}; }
inline Avx512 abs(Avx512 a) { return {_mm512_abs_ps(a.v)}; }
inline Avx512 sqrt(Avx512 a) { return {_mm512_sqrt_ps(a.v)}; }
inline Avx512 where_less(Avx512 a, Avx512 b, Avx512 x, Avx512 y) {
  return {_mm512_mask_blend_ps(_mm512_cmp_ps_mask(a.v, b.v, _CMP_LT_OQ), y.v, x.v)};
}
inline std::uint32_t less_bits(Avx512 a, Avx512 b) {
  return _mm512_cmp_ps_mask(a.v, b.v, _CMP_LT_OQ);
}
inline Avx512 scale_exponent(Avx512 a, Avx512 t) {
  const __m512i n = _mm512_slli_epi32(_mm512_castps_si512(t.v), 23);
  return {_mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(a.v), n))};
}
inline Avx512 exponent(Avx512 a) {
  const __m512i offset = _mm512_sub_epi32(_mm512_castps_si512(a.v), _mm512_set1_epi32(0x3f3504f3));
  return {_mm512_cvtepi32_ps(_mm512_srai_epi32(offset, 23))};
}

inline float reduce_add(Avx512 a) {
  const __m256 w = _mm256_add_ps(_mm512_castps512_ps256(a.v), _mm512_extractf32x8_ps(a.v, 1));
  const __m128 x = _mm_add_ps(_mm256_castps256_ps128(w), _mm256_extractf128_ps(w, 1));
  const __m128 y = _mm_add_ps(x, _mm_movehl_ps(x, x));
  return _mm_cvtss_f32(_mm_add_ss(y, _mm_movehdup_ps(y)));
}
inline float reduce_max(Avx512 a) {
  const __m256 w = _mm256_max_ps(_mm512_castps512_ps256(a.v), _mm512_extractf32x8_ps(a.v, 1));
  const __m128 x = _mm_max_ps(_mm256_castps256_ps128(w), _mm256_extractf128_ps(w, 1));
  const __m128 y = _mm_max_ps(x, _mm_movehl_ps(x, x));
  return _mm_cvtss_f32(_mm_max_ss(y, _mm_movehdup_ps(y)));
}
// Four reductions at once, each by the tree of one.
template <class Op>
inline void reduce4(Avx512 a, Avx512 b, Avx512 c, Avx512 d, float *out, Op op) {
  const __m512 ab = op(_mm512_shuffle_f32x4(a.v, b.v, 0x44), _mm512_shuffle_f32x4(a.v, b.v, 0xee));
  const __m512 cd = op(_mm512_shuffle_f32x4(c.v, d.v, 0x44), _mm512_shuffle_f32x4(c.v, d.v, 0xee));
  const __m512 x = op(_mm512_shuffle_f32x4(ab, cd, 0x88), _mm512_shuffle_f32x4(ab, cd, 0xdd));
  const __m512 y = op(x, _mm512_permute_ps(x, 0x4e));
  const __m512 z = op(y, _mm512_permute_ps(y, 0xb1));
  const __m512i first = _mm512_setr_epi32(0, 4, 8, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0);
  _mm_storeu_ps(out, _mm512_castps512_ps128(_mm512_permutexvar_ps(first, z)));
}
inline void reduce_add4(Avx512 a, Avx512 b, Avx512 c, Avx512 d, float *out) {
  reduce4(a, b, c, d, out, [](__m512 x, __m512 y) { return _mm512_add_ps(x, y); });
}
inline void reduce_max4(Avx512 a, Avx512 b, Avx512 c, Avx512 d, float *out) {
  reduce4(a, b, c, d, out, [](__m512 x, __m512 y) { return _mm512_max_ps(x, y); });
}

// Eight sums, each by the tree of one, in eight pieces; then s[0] holds them. Where two vectors are to be added crosswise,
// a blend has one half of each in place and a shuffle the others, in one step where both would be shuffles.
inline __attribute__((always_inline)) void reduce_piece(std::uint32_t piece, Avx512 (&s)[8]) {
  if (piece < 4) {
    const __m512 a = s[2 * piece].v, b = s[2 * piece + 1].v;
    const __m512 across = _mm512_castsi512_ps(_mm512_alignr_epi64(_mm512_castps_si512(b), _mm512_castps_si512(a), 4));
    s[2 * piece].v = _mm512_add_ps(_mm512_mask_blend_ps(0xff00, a, b), across);
  } else if (piece < 6) {
    const __m512 a = s[4 * (piece - 4)].v, b = s[4 * (piece - 4) + 2].v;
    const __m512 others = _mm512_mask_blend_ps(0x0f0f, a, b), across = _mm512_shuffle_f32x4(others, others, 0xb1);
    s[4 * (piece - 4)].v = _mm512_add_ps(_mm512_mask_blend_ps(0xf0f0, a, b), across);
  } else if (piece == 6) {
    const __m512 a = s[0].v, b = s[4].v;
    const __m512 across = _mm512_castpd_ps(_mm512_shuffle_pd(_mm512_castps_pd(a), _mm512_castps_pd(b), 0x55));
    s[0].v = _mm512_add_ps(_mm512_mask_blend_ps(0xcccc, a, b), across);
  } else {
    s[0].v = _mm512_add_ps(s[0].v, _mm512_permute_ps(s[0].v, 0xb1));
  }
}
// The sums 2 * k and 2 * k + 1 to out + k * stride.
inline __attribute__((always_inline)) void put_reduced(const Avx512 (&s)[8], float *out, std::size_t stride) {
  const __m512i order = _mm512_setr_epi32(0, 8, 4, 12, 2, 10, 6, 14, 0, 0, 0, 0, 0, 0, 0, 0);
  const __m512 x = _mm512_permutexvar_ps(order, s[0].v);
  const __m128 low = _mm512_castps512_ps128(x), high = _mm512_extractf32x4_ps(x, 1);
  _mm_storel_pi(reinterpret_cast<__m64 *>(out), low);
  _mm_storeh_pi(reinterpret_cast<__m64 *>(out + stride), low);
  _mm_storel_pi(reinterpret_cast<__m64 *>(out + 2 * stride), high);
  _mm_storeh_pi(reinterpret_cast<__m64 *>(out + 3 * stride), high);
}

}  // namespace
}  // namespace kvsift

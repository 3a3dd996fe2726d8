// 16 float lanes in four NEON registers (AArch64).
#pragma once

#include <arm_neon.h>

#include "kernels/element.h"

namespace kvsift {
namespace {

// 16 int8 numbers, widened.
struct NeonCodes {
  static constexpr std::uint32_t kCount = 16;
  static constexpr int kRowOffset = 0;
  int16x8_t lo, hi;

  static NeonCodes query(const std::int8_t *p) { return row(p, kCount); }
  static NeonCodes row(const std::int8_t *p, std::uint32_t) {
    const int8x16_t bytes = vld1q_s8(p);
    return {vmovl_s8(vget_low_s8(bytes)), vmovl_high_s8(bytes)};
  }
  static NeonCodes squares(const std::int8_t *p, std::uint32_t n) {
    const NeonCodes x = row(p, n);
    return {vrshrq_n_s16(vmulq_s16(x.lo, x.lo), kSquareBits),
            vrshrq_n_s16(vmulq_s16(x.hi, x.hi), kSquareBits)};
  }
};
struct NeonSums {
  int32x4_t v;
  static NeonSums start(std::int32_t first) { return {vsetq_lane_s32(first, vdupq_n_s32(0), 0)}; }
};
inline NeonSums add_products(const NeonCodes &query, const NeonCodes &row, NeonSums sum) {
  sum.v = vmlal_s16(sum.v, vget_low_s16(query.lo), vget_low_s16(row.lo));
  sum.v = vmlal_high_s16(sum.v, query.lo, row.lo);
  sum.v = vmlal_s16(sum.v, vget_low_s16(query.hi), vget_low_s16(row.hi));
  return {vmlal_high_s16(sum.v, query.hi, row.hi)};
}
// Four sums as floats.
inline void total4(NeonSums a, NeonSums b, NeonSums c, NeonSums d, float *out) {
  const int32x4_t x = vpaddq_s32(vpaddq_s32(a.v, b.v), vpaddq_s32(c.v, d.v));
  vst1q_f32(out, vcvtq_f32_s32(x));
}

// Columns of two int8 rows, to be weighed together.
struct NeonPair {
  static constexpr std::uint32_t kColumns = 16;
  NeonCodes a, b;

  static NeonPair load(const std::int8_t *a, const std::int8_t *b, std::uint32_t n) {
    return {NeonCodes::row(a, n), NeonCodes::row(b, n)};
  }
};
struct NeonPairWeights {
  std::int16_t a, b;
  explicit NeonPairWeights(const std::int16_t *code) : a(code[0]), b(code[1]) {}
};
struct NeonPairSums {
  int32x4_t v[4];
  static NeonPairSums zero() { return {{vdupq_n_s32(0), vdupq_n_s32(0), vdupq_n_s32(0), vdupq_n_s32(0)}}; }
};
inline NeonPairSums add_row(const NeonCodes &x, std::int16_t w, const NeonPairSums &sum) {
  return {{vmlal_n_s16(sum.v[0], vget_low_s16(x.lo), w), vmlal_high_n_s16(sum.v[1], x.lo, w),
           vmlal_n_s16(sum.v[2], vget_low_s16(x.hi), w), vmlal_high_n_s16(sum.v[3], x.hi, w)}};
}
inline NeonPairSums add_pair(const NeonPair &x, NeonPairWeights w, const NeonPairSums &sum) {
  return add_row(x.b, w.b, add_row(x.a, w.a, sum));
}
inline void to_floats(const NeonPairSums &sum, float *out) {
  for (int i = 0; i < 4; ++i) vst1q_f32(out + 4 * i, vcvtq_f32_s32(sum.v[i]));
}

struct Neon {
  using RowPair = NeonPair;
  using PairWeights = NeonPairWeights;
  using PairSums = NeonPairSums;
  static constexpr std::uint32_t kPairTile = 1;
  using Codes = NeonCodes;
  using Sums = NeonSums;
  static constexpr std::uint32_t kQueryTile = 4, kTokenTile = 1, kDimTile = 1;
  using Piece = Neon;
  static constexpr std::uint32_t kPieces = 1;
  static constexpr bool kPairs = false;
  static constexpr std::uint32_t kConvColumns = 4, kConvHalves = 1;
  float32x4_t v[4];

  template <class F>
  static Neon make(F f) {
    return {{f(0), f(1), f(2), f(3)}};
  }

  static Neon zero() { return broadcast(0.0f); }
  static Neon broadcast(float x) {
    return make([=](int) { return vdupq_n_f32(x); });
  }
  static Neon load(const float *p) {
    return make([=](int i) { return vld1q_f32(p + 4 * i); });
  }
  static Neon load(const F16 *p) {
    return make(
        [=](int i) { return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(&p[4 * i].bits))); });
  }
  static Neon load(const BF16 *p) {
    return make(
        [=](int i) { return vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(&p[4 * i].bits), 16)); });
  }
  static Neon load(const std::int8_t *p) {
    const int8x16_t bytes = vld1q_s8(p);
    const int16x8_t lo = vmovl_s8(vget_low_s8(bytes)), hi = vmovl_s8(vget_high_s8(bytes));
    return {
        {vcvtq_f32_s32(vmovl_s16(vget_low_s16(lo))), vcvtq_f32_s32(vmovl_s16(vget_high_s16(lo))),
         vcvtq_f32_s32(vmovl_s16(vget_low_s16(hi))), vcvtq_f32_s32(vmovl_s16(vget_high_s16(hi)))}};
  }
};

inline uint16x4_t half_of(float32x4_t a) { return vreinterpret_u16_f16(vcvt_f16_f32(a)); }
inline float32x4_t float_of(uint16x4_t h) { return vcvt_f32_f16(vreinterpret_f16_u16(h)); }
// The halves next to `h` on the side of minus infinity.
inline uint16x4_t half_below(uint16x4_t h) {
  const uint16x4_t one = vdup_n_u16(1), negative = vtst_u16(h, vdup_n_u16(0x8000));
  const uint16x4_t next = vbsl_u16(negative, vadd_u16(h, one), vsub_u16(h, one));
  return vbsl_u16(vceq_u16(h, vdup_n_u16(0)), vdup_n_u16(0x8001), next);
}

inline void store(float *p, const Neon &a) {
  for (int i = 0; i < 4; ++i) vst1q_f32(p + 4 * i, a.v[i]);
}
inline void store(F16 *p, const Neon &a) {
  for (int i = 0; i < 4; ++i) vst1_u16(&p[4 * i].bits, half_of(a.v[i]));
}
inline void store_down(F16 *p, const Neon &a) {
  for (int i = 0; i < 4; ++i) {
    const uint16x4_t h = half_of(a.v[i]);
    vst1_u16(&p[4 * i].bits, vbsl_u16(vmovn_u32(vcgtq_f32(float_of(h), a.v[i])), half_below(h), h));
  }
}
inline void store_up(F16 *p, const Neon &a) {
  const uint16x4_t sign = vdup_n_u16(0x8000);
  for (int i = 0; i < 4; ++i) {
    const uint16x4_t h = half_of(a.v[i]);
    const uint16x4_t above = veor_u16(half_below(veor_u16(h, sign)), sign);
    vst1_u16(&p[4 * i].bits, vbsl_u16(vmovn_u32(vcltq_f32(float_of(h), a.v[i])), above, h));
  }
}
inline void store(std::int8_t *p, const Neon &a) {
  const int16x8_t lo =
      vcombine_s16(vmovn_s32(vcvtq_s32_f32(a.v[0])), vmovn_s32(vcvtq_s32_f32(a.v[1])));
  const int16x8_t hi =
      vcombine_s16(vmovn_s32(vcvtq_s32_f32(a.v[2])), vmovn_s32(vcvtq_s32_f32(a.v[3])));
  vst1q_s8(p, vcombine_s8(vmovn_s16(lo), vmovn_s16(hi)));
}
inline void store(std::int16_t *p, const Neon &a) {
  for (int i = 0; i < 4; ++i) vst1_s16(p + 4 * i, vmovn_s32(vcvtq_s32_f32(a.v[i])));
}

inline Neon add(const Neon &a, const Neon &b) {
  return Neon::make([&](int i) { return vaddq_f32(a.v[i], b.v[i]); });
}
inline Neon sub(const Neon &a, const Neon &b) {
  return Neon::make([&](int i) { return vsubq_f32(a.v[i], b.v[i]); });
}
inline Neon mul(const Neon &a, const Neon &b) {
  return Neon::make([&](int i) { return vmulq_f32(a.v[i], b.v[i]); });
}
inline Neon fma(const Neon &a, const Neon &b, const Neon &c) {
  return Neon::make([&](int i) { return vfmaq_f32(c.v[i], a.v[i], b.v[i]); });
}
inline float32x4_t max(float32x4_t a, float32x4_t b) { return vbslq_f32(vcgtq_f32(a, b), a, b); }
inline Neon max(const Neon &a, const Neon &b) {
  return Neon::make([&](int i) { return max(a.v[i], b.v[i]); });
}
inline Neon min(const Neon &a, const Neon &b) {
  return Neon::make([&](int i) { return vbslq_f32(vcltq_f32(a.v[i], b.v[i]), a.v[i], b.v[i]); });
}
inline Neon abs(const Neon &a) {
  return Neon::make([&](int i) { return vabsq_f32(a.v[i]); });
}
inline Neon sqrt(const Neon &a) {
  return Neon::make([&](int i) { return vsqrtq_f32(a.v[i]); });
}
inline Neon where_less(const Neon &a, const Neon &b, const Neon &x, const Neon &y) {
  return Neon::make([&](int i) { return vbslq_f32(vcltq_f32(a.v[i], b.v[i]), x.v[i], y.v[i]); });
}
inline std::uint32_t less_bits(const Neon &a, const Neon &b) {
  const uint32x4_t places = {1, 2, 4, 8};
  std::uint32_t bits = 0;
  for (std::uint32_t i = 0; i < 4; ++i)
    bits |= vaddvq_u32(vandq_u32(vcltq_f32(a.v[i], b.v[i]), places)) << (4 * i);
  return bits;
}
inline Neon scale_exponent(const Neon &a, const Neon &t) {
  return Neon::make([&](int i) {
    const uint32x4_t n = vshlq_n_u32(vreinterpretq_u32_f32(t.v[i]), 23);
    return vreinterpretq_f32_u32(vaddq_u32(vreinterpretq_u32_f32(a.v[i]), n));
  });
}
inline Neon exponent(const Neon &a) {
  return Neon::make([&](int i) {
    const int32x4_t offset = vsubq_s32(vreinterpretq_s32_f32(a.v[i]), vdupq_n_s32(0x3f3504f3));
    return vcvtq_f32_s32(vshrq_n_s32(offset, 23));
  });
}

inline float reduce_add(const Neon &a) {
  const float32x4_t x = vaddq_f32(vaddq_f32(a.v[0], a.v[2]), vaddq_f32(a.v[1], a.v[3]));
  const float32x2_t y = vadd_f32(vget_low_f32(x), vget_high_f32(x));
  return vget_lane_f32(y, 0) + vget_lane_f32(y, 1);
}
inline float reduce_max(const Neon &a) {
  const float32x4_t x = max(max(a.v[0], a.v[2]), max(a.v[1], a.v[3]));
  const float32x4_t y = max(x, vextq_f32(x, x, 2));
  return vgetq_lane_f32(max(y, vextq_f32(y, y, 1)), 0);
}
inline void reduce_add4(const Neon &a, const Neon &b, const Neon &c, const Neon &d, float *out) {
  out[0] = reduce_add(a);
  out[1] = reduce_add(b);
  out[2] = reduce_add(c);
  out[3] = reduce_add(d);
}
inline void reduce_max4(const Neon &a, const Neon &b, const Neon &c, const Neon &d, float *out) {
  out[0] = reduce_max(a);
  out[1] = reduce_max(b);
  out[2] = reduce_max(c);
  out[3] = reduce_max(d);
}

}  // namespace
}  // namespace kvsift

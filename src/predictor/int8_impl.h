// The second convolution in int8, four columns at once.
#pragma once

#include "predictor/conv_tile.h"

#if defined(__AVX512VNNI__)
#include "kernels/vec_avx512.h"
#endif

namespace kvsift {
namespace {

constexpr std::uint32_t kCoded = 4;  // columns

struct CodedPatch {
  alignas(16) std::int8_t code[kTaps][kMiddle];
  float unit;  // what a code of 1 is worth
};

template <class V>
void code_patch(const float *middle, std::uint32_t dy_begin, std::uint32_t dy_end, CodedPatch *patch) {
  V most = V::zero();
  for (std::uint32_t t = 3 * dy_begin; t < 3 * dy_end; ++t) {
    most = max(most, abs(V::load(middle + (t / 3 * kTileMiddle + t % 3) * kMiddle)));
  }
  const float size = reduce_max(most);
  // Adding and taking away 1.5 * 2^23 rounds to a whole number.
  const V round = V::broadcast(12582912.0f), scale = V::broadcast(size > 0 ? 127.0f / size : 0.0f);
  for (std::uint32_t t = 3 * dy_begin; t < 3 * dy_end; ++t) {
    const V x = V::load(middle + (t / 3 * kTileMiddle + t % 3) * kMiddle);
    store(patch->code[t], sub(fma(x, scale, round), round));
  }
  patch->unit = size / 127.0f;
}

#if defined(__AVX512VNNI__)
// The instruction takes one side unsigned: codes go in with 128 added, which the sums of the weights take out again.
inline void offset_codes(CodedPatch *patch) {
  const __m128i high = _mm_set1_epi8(-128);
  for (std::uint32_t t = 0; t < kTaps; ++t) {
    auto *code = reinterpret_cast<__m128i *>(patch->code[t]);
    _mm_store_si128(code, _mm_xor_si128(_mm_load_si128(code), high));
  }
}

inline void multiply_codes(const PredictorCodes &w, CodedPatch *patches, std::uint32_t dy_begin, std::uint32_t dy_end,
                           float (*out)[kDeep]) {
  __m512i sum[kCoded][2], offset[2] = {_mm512_setzero_si512(), _mm512_setzero_si512()};
  for (std::uint32_t dy = dy_begin; dy < dy_end; ++dy) {
    for (int h = 0; h < 2; ++h) offset[h] = _mm512_sub_epi32(offset[h], _mm512_loadu_si512(w.sum[dy] + 16 * h));
  }
  for (std::uint32_t c = 0; c < kCoded; ++c) {
    offset_codes(&patches[c]);
    for (int h = 0; h < 2; ++h) sum[c][h] = _mm512_slli_epi32(offset[h], 7);
  }
  for (std::uint32_t t = 3 * dy_begin; t < 3 * dy_end; ++t) {
    for (std::uint32_t i = 0; i < kMiddle / 4; ++i) {
      const __m512i lo = _mm512_loadu_si512(w.conv2[t][i][0]), hi = _mm512_loadu_si512(w.conv2[t][i][16]);
      for (std::uint32_t c = 0; c < kCoded; ++c) {
        std::int32_t four;
        __builtin_memcpy(&four, patches[c].code[t] + 4 * i, 4);
        const __m512i x = _mm512_set1_epi32(four);
        sum[c][0] = _mm512_dpbusd_epi32(sum[c][0], x, lo);
        sum[c][1] = _mm512_dpbusd_epi32(sum[c][1], x, hi);
      }
    }
  }
  for (std::uint32_t c = 0; c < kCoded; ++c) {
    for (int h = 0; h < 2; ++h) _mm512_storeu_ps(out[c] + 16 * h, _mm512_cvtepi32_ps(sum[c][h]));
  }
}
#else
inline void multiply_codes(const PredictorCodes &w, CodedPatch *patches, std::uint32_t dy_begin, std::uint32_t dy_end,
                           float (*out)[kDeep]) {
  for (std::uint32_t c = 0; c < kCoded; ++c) {
    std::int32_t sum[kDeep] = {};
    for (std::uint32_t t = 3 * dy_begin; t < 3 * dy_end; ++t) {
      for (std::uint32_t i = 0; i < kMiddle / 4; ++i) {
        const std::int8_t *x = patches[c].code[t] + 4 * i;
        for (std::uint32_t o = 0; o < kDeep; ++o) {
          const std::int8_t *weight = w.conv2[t][i][o];
          sum[o] += x[0] * weight[0] + x[1] * weight[1] + x[2] * weight[2] + x[3] * weight[3];
        }
      }
    }
    for (std::uint32_t o = 0; o < kDeep; ++o) out[c][o] = static_cast<float>(sum[o]);
  }
}
#endif

template <class V>
float finish_column(const PredictorWeights &w, const PredictorCodes &codes, const float *sums, float unit,
                    const float *base) {
  V s = V::zero();
  for (std::uint32_t h = 0; h < kDeep; h += kLanes) {
    const V worth = mul(V::broadcast(unit), V::load(codes.scale + h));
    const V deep = fma(V::load(sums + h), worth, V::load(base + h));
    s = fma(max(deep, V::zero()), V::load(w.conv3 + h), s);
  }
  return reduce_add(s);
}

template <class V>
void flush_codes(const PredictorWeights &w, const PredictorCodes &codes, std::uint32_t dy_begin, std::uint32_t dy_end,
                 ConvBatch *batch) {
  const std::uint32_t rows = (dy_begin == 1 ? 1u : 0u) | (dy_end == 2 ? 2u : 0u);
  CodedPatch patches[kCoded];
  float sums[kCoded][kDeep];
  for (std::uint32_t i = 0; i < batch->count; i += kCoded) {
    const std::uint32_t count = batch->count - i < kCoded ? batch->count - i : kCoded;
    for (std::uint32_t c = 0; c < kCoded; ++c) {
      code_patch<V>(batch->middle[i + (c < count ? c : 0)], dy_begin, dy_end, &patches[c]);
    }
    multiply_codes(codes, patches, dy_begin, dy_end, sums);
    for (std::uint32_t c = 0; c < count; ++c) {
      const float *base = codes.base[rows][batch->side[i + c]];
      *batch->out[i + c] = finish_column<V>(w, codes, sums[c], patches[c].unit, base);
    }
  }
  batch->count = 0;
}

}  // namespace
}  // namespace kvsift

// The second convolution in int8. A tap whose middle channels are those of an empty history has codes of zero and is
// left out: around a lone block that is most of them.
#pragma once

#include "predictor/conv_tile.h"

#if defined(__AVX512VNNI__)
#include "kernels/vec_avx512.h"
#elif defined(__AVX2__)
#include <immintrin.h>
#endif

namespace kvsift {
namespace {

// First convolution of one row, less the values of an empty history, where it differs from them.
template <class V>
void find_beyond(const ConvStrip &strip, std::uint32_t t, std::uint32_t row, std::uint64_t wanted, ConvTile *tile) {
  const V empty = V::load(strip.codes->middle);
  float *size = tile->size[row];
  for (std::uint32_t x = 0; x < kTile + kLanes; x += kLanes) store(size + x, V::zero());
  tile->beyond[row] = wanted & inside_crop(strip, t) & filled_around(*tile, row);
  for (std::uint64_t left = tile->beyond[row]; left != 0; left &= left - 1) {
    const auto x = static_cast<std::uint32_t>(__builtin_ctzll(left));
    const V beyond = sub(middle_at<V>(strip, *tile, row, x), empty);
    store(tile->middle[row][x], beyond);
    size[x] = reduce_max(abs(beyond));
  }
}

// The largest size in the 3x3 neighbourhood of each of a row's columns.
template <class V>
void largest_sizes(const ConvTile &tile, std::uint32_t row, float *out) {
  for (std::uint32_t x = 0; x < kTile; x += kLanes) {
    V most = V::zero();
    for (std::uint32_t t = 0; t < kTaps; ++t) most = max(most, V::load(tile.size[row + t / 3] + x + t % 3));
    store(out + x, most);
  }
}

// The codes of a 3x3 neighbourhood. Taps that are not in `taps` have codes of zero, and none here.
struct CodedPatch {
  alignas(16) std::int8_t code[kTaps][kMiddle];
  std::uint32_t taps;
};

template <class V>
void code_patch(const ConvTile &tile, std::uint32_t row, std::uint32_t x, float size, CodedPatch *patch) {
  // Adding and taking away 1.5 * 2^23 rounds to a whole number.
  const V round = V::broadcast(12582912.0f), scale = V::broadcast(size > 0 ? 127.0f / size : 0.0f);
  patch->taps = 0;
  for (std::uint32_t dy = 0; dy < 3; ++dy) patch->taps |= static_cast<std::uint32_t>(tile.beyond[row + dy] >> x & 7) << (3 * dy);
  for (std::uint32_t left = patch->taps; left != 0; left &= left - 1) {
    const auto t = static_cast<std::uint32_t>(__builtin_ctz(left));
    store(patch->code[t], sub(fma(V::load(tile.middle[row + t / 3][x + t % 3]), scale, round), round));
  }
}

#if defined(__AVX512VNNI__)
// The instruction takes one side unsigned: codes go in with 128 added, which the sums of the weights take out again.
inline void multiply_codes(const PredictorCodes &w, const CodedPatch &patch, float *out) {
  __m512i sum[2][2] = {}, offset[2] = {};
  for (std::uint32_t left = patch.taps; left != 0; left &= left - 1) {
    const auto t = static_cast<std::uint32_t>(__builtin_ctz(left));
    const __m128i code = _mm_load_si128(reinterpret_cast<const __m128i *>(patch.code[t]));
    const __m512i codes = _mm512_broadcast_i32x4(_mm_xor_si128(code, _mm_set1_epi8(-128)));
    const __m512i x[] = {_mm512_shuffle_epi32(codes, _MM_PERM_AAAA), _mm512_shuffle_epi32(codes, _MM_PERM_BBBB),
                         _mm512_shuffle_epi32(codes, _MM_PERM_CCCC), _mm512_shuffle_epi32(codes, _MM_PERM_DDDD)};
    for (int h = 0; h < 2; ++h) {
      offset[h] = _mm512_add_epi32(offset[h], _mm512_loadu_si512(w.sum[t] + 16 * h));
      for (std::uint32_t i = 0; i < kMiddle / 4; ++i) {
        sum[i % 2][h] = _mm512_dpbusd_epi32(sum[i % 2][h], x[i], _mm512_loadu_si512(w.conv2[t][i][16 * h]));
      }
    }
  }
  for (int h = 0; h < 2; ++h) {
    const __m512i all = _mm512_add_epi32(sum[0][h], sum[1][h]);
    const __m512i exact = _mm512_sub_epi32(all, _mm512_slli_epi32(offset[h], 7));
    _mm512_storeu_ps(out + 16 * h, _mm512_cvtepi32_ps(exact));
  }
}
#elif defined(__AVX2__)
// Codes are widened to 16 bits; each deep channel's sum comes in two halves.
inline void multiply_codes(const PredictorCodes &w, const CodedPatch &patch, float *out) {
  constexpr std::uint32_t kParts = kDeep / 4;
  __m256i sum[kParts] = {};
  for (std::uint32_t left = patch.taps; left != 0; left &= left - 1) {
    const auto t = static_cast<std::uint32_t>(__builtin_ctz(left));
    for (std::uint32_t i = 0; i < kMiddle / 4; ++i) {
      std::int32_t four;
      __builtin_memcpy(&four, patch.code[t] + 4 * i, 4);
      const __m256i x = _mm256_broadcastq_epi64(_mm_cvtepi8_epi16(_mm_cvtsi32_si128(four)));
      const auto *weights = reinterpret_cast<const __m128i *>(w.conv2[t][i]);
      for (std::uint32_t p = 0; p < kParts; ++p) {
        const __m256i weight = _mm256_cvtepi8_epi16(_mm_loadu_si128(weights + p));
        sum[p] = _mm256_add_epi32(sum[p], _mm256_madd_epi16(weight, x));
      }
    }
  }
  for (std::uint32_t p = 0; p < kParts; p += 2) {
    const __m256i both = _mm256_permute4x64_epi64(_mm256_hadd_epi32(sum[p], sum[p + 1]), 0xd8);
    _mm256_storeu_ps(out + 4 * p, _mm256_cvtepi32_ps(both));
  }
}
#else
inline void multiply_codes(const PredictorCodes &w, const CodedPatch &patch, float *out) {
  std::int32_t sum[kDeep] = {};
  for (std::uint32_t left = patch.taps; left != 0; left &= left - 1) {
    const auto t = static_cast<std::uint32_t>(__builtin_ctz(left));
    for (std::uint32_t i = 0; i < kMiddle / 4; ++i) {
      const std::int8_t *x = patch.code[t] + 4 * i;
      for (std::uint32_t o = 0; o < kDeep; ++o) {
        const std::int8_t *weight = w.conv2[t][i][o];
        sum[o] += x[0] * weight[0] + x[1] * weight[1] + x[2] * weight[2] + x[3] * weight[3];
      }
    }
  }
  for (std::uint32_t o = 0; o < kDeep; ++o) out[o] = static_cast<float>(sum[o]);
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

// The second convolution of one row, where `active` says.
template <class V>
void convolve_codes(const ConvStrip &strip, std::uint32_t t, std::uint32_t row, std::uint64_t active, const ConvTile &tile) {
  if (active == 0) return;
  const PredictorCodes &codes = *strip.codes;
  const std::uint32_t missing = missing_rows(strip, row);
  float sizes[kTile];
  largest_sizes<V>(tile, row, sizes);
  for (; active != 0; active &= active - 1) {
    const auto x = static_cast<std::uint32_t>(__builtin_ctzll(active));
    const std::uint32_t side = t + x == strip.left ? 1 : t + x + 1 == strip.right ? 2 : 0;
    CodedPatch patch;
    float sums[kDeep];
    code_patch<V>(tile, row, x, sizes[x], &patch);
    multiply_codes(codes, patch, sums);
    strip.out[row][t + x] = finish_column<V>(*strip.weights, codes, sums, sizes[x] / 127.0f, codes.base[missing][side]);
  }
}

}  // namespace
}  // namespace kvsift

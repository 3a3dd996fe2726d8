/* Compiled several times, with KERNEL_TABLE naming what each compilation defines. GCC's vector
 * types give the plain arithmetic; only the conversion of half floats needs an intrinsic. */
#include "kernels.h"

#include <string.h>

#include "gguf.h"

#if defined(__F16C__) || defined(__AVX512F__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"
#ifndef __clang__
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>
#pragma GCC diagnostic pop
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#if defined(__AVX512F__)
#define LANES 16u
#elif defined(__AVX2__)
#define LANES 8u
#else
#define LANES 4u
#endif

typedef float vector __attribute__((vector_size(LANES * 4)));
typedef float loose_vector __attribute__((vector_size(LANES * 4), aligned(4), may_alias));

static inline vector load(const float *from) { return *(const loose_vector *)from; }

static inline float sum(vector v) {
  float total = 0;
  for (uint32_t i = 0; i < LANES; i++) total += v[i];
  return total;
}

static inline float read_half(const uint8_t *from) {
  uint16_t bits;
  memcpy(&bits, from, 2);
  return half_to_float(bits);
}

static void expand_half(const uint8_t *row, uint32_t count, float *out) {
  uint32_t i = 0;
#if defined(__AVX512F__)
  for (; i + 16 <= count; i += 16) {
    __m256i halves = _mm256_loadu_si256((const __m256i *)(const void *)(row + 2 * (size_t)i));
    _mm512_storeu_ps(out + i, _mm512_cvtph_ps(halves));
  }
#elif defined(__F16C__)
  for (; i + 8 <= count; i += 8) {
    __m128i halves = _mm_loadu_si128((const __m128i *)(const void *)(row + 2 * (size_t)i));
    _mm256_storeu_ps(out + i, _mm256_cvtph_ps(halves));
  }
#elif defined(__aarch64__)
  for (; i + 4 <= count; i += 4) {
    uint16x4_t halves;
    memcpy(&halves, row + 2 * (size_t)i, 8);
    vst1q_f32(out + i, vcvt_f32_f16(vreinterpret_f16_u16(halves)));
  }
#endif
  for (; i < count; i++) out[i] = read_half(row + 2 * (size_t)i);
}

static void expand_bfloat(const uint8_t *row, uint32_t count, float *out) {
  for (uint32_t i = 0; i < count; i++) {
    uint16_t bits;
    memcpy(&bits, row + 2 * (size_t)i, 2);
    uint32_t wide = (uint32_t)bits << 16;
    memcpy(out + i, &wide, 4);
  }
}

static void expand_q8_0(const uint8_t *row, uint32_t count, float *out) {
  for (uint32_t i = 0; i < count; i += GGML_Q8_0_BLOCK) {
    float scale = read_half(row);
    const int8_t *quants = (const int8_t *)(row + 2);
    for (uint32_t j = 0; j < GGML_Q8_0_BLOCK; j++) out[i + j] = scale * (float)quants[j];
    row += 2 + GGML_Q8_0_BLOCK;
  }
}

static void expand_row(uint32_t type, const void *row, uint32_t count, float *out) {
  if (type == GGML_F16) {
    expand_half(row, count, out);
  } else if (type == GGML_BF16) {
    expand_bfloat(row, count, out);
  } else {
    expand_q8_0(row, count, out);
  }
}

static void tile(const float *const *rows, const float *inputs, uint64_t input_stride,
                 uint32_t count, float *out, uint64_t out_stride) {
  vector sums[TILE_ROWS][TILE_INPUTS] = {{{0}}};
  uint32_t i = 0;
  for (; i + LANES <= count; i += LANES) {
    vector a = load(inputs + i), b = load(inputs + input_stride + i);
    for (uint32_t r = 0; r < TILE_ROWS; r++) {
      vector w = load(rows[r] + i);
      sums[r][0] += w * a;
      sums[r][1] += w * b;
    }
  }
  for (uint32_t r = 0; r < TILE_ROWS; r++) {
    for (uint32_t j = 0; j < TILE_INPUTS; j++) {
      float total = sum(sums[r][j]);
      for (uint32_t k = i; k < count; k++) total += rows[r][k] * inputs[j * input_stride + k];
      out[j * out_stride + r] = total;
    }
  }
}

static void column(const float *const *rows, const float *input, uint32_t count, float *out) {
  vector sums[TILE_ROWS] = {{0}};
  uint32_t i = 0;
  for (; i + LANES <= count; i += LANES) {
    vector a = load(input + i);
    for (uint32_t r = 0; r < TILE_ROWS; r++) sums[r] += load(rows[r] + i) * a;
  }
  for (uint32_t r = 0; r < TILE_ROWS; r++) {
    float total = sum(sums[r]);
    for (uint32_t k = i; k < count; k++) total += rows[r][k] * input[k];
    out[r] = total;
  }
}

#define TEXT_OF(name) #name
#define NAME_OF(name) TEXT_OF(name)
extern const kernel_table KERNEL_TABLE;
const kernel_table KERNEL_TABLE = {NAME_OF(KERNEL_TABLE), expand_row, tile, column};

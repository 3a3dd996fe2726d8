// Element-wise kernels over float arrays of any length and alignment.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/view.h"
#include "kernels/element.h"

namespace kvsift {

struct ArrayKernels {
  float (*max)(const float *x, std::size_t n);  // minus infinity where n is 0
  // Lane i adds elements i, i + 16, ...; then the tree.
  float (*sum)(const float *x, std::size_t n);
  // How many of x lie above the bound; n at most 2^24.
  std::uint32_t (*count_above)(const float *x, std::size_t n, float bound);
  // first + i for each of them, ascending; returns how many.
  std::uint32_t (*places_above)(const float *x, std::size_t n, float bound, std::uint32_t first,
                                std::uint32_t *out);
  // Whether low <= x < high for each of them; NaN is not. low < high. A false may be wrong where x
  // holds infinities of both signs, or large numbers of both whose sums overflow.
  bool (*within)(const float *x, std::size_t n, float low, float high);
  // y = a * y + b * x
  void (*axpby)(float a, float *y, float b, const float *x, std::size_t n);
  // Of `count` rows that lie `stride` apart, each times its factor: their mean, or their largest,
  // element by element. out may be the first row.
  void (*mean)(const float *rows, std::size_t stride, std::uint32_t count, const float *factors, float *out, std::size_t n);
  void (*largest)(const float *rows, std::size_t stride, std::uint32_t count, const float *factors, float *out, std::size_t n);
  // y = e^(x - from); y may be x.
  void (*exp)(const float *x, float from, float *y, std::size_t n);
  void (*log)(const float *x, float *y, std::size_t n);
  void (*to_half)(const float *x, F16 *y, std::size_t n);
  void (*from_half)(const F16 *x, float *y, std::size_t n);
  // Scaled by the row's largest magnitude / 127, which is returned.
  float (*to_int8)(const float *x, std::int8_t *y, std::size_t n);
  // Element c of row i to out[i * padded_dim(dim) + c], zeros behind it.
  void (*widen_rows)(const Rows &rows, std::uint32_t count, std::uint32_t dim, float *out);
  // No NaN or infinity in the first `dim` elements of each row, nor in its scale.
  bool (*rows_finite)(const Rows &rows, std::uint32_t count, std::uint32_t dim);
};

}  // namespace kvsift

// Kernels of page summaries: moments and bounds of keys, and what queries make of them.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/view.h"
#include "kernels/attention_kernels.h"
#include "kernels/element.h"

namespace kvsift {

// Of queries [group][padded_dim(dim)] and `count` pages: dot = q.mean, and spread = sum (q_c deviation_c)^2
// (squared) or sum |q_c| deviation_c, each [group][stride]. `following`: pages behind them that the next
// call will read.
using PageStatistics = void(const float *queries, std::uint32_t group, const Rows &mean,
                            const Rows &deviation, std::uint32_t count, std::uint32_t following,
                            std::uint32_t dim, bool squared, float *dot, float *spread,
                            std::size_t stride);

#if defined(__x86_64__)
// The coded one, where the machine multiplies int8 (AVX-512 VNNI); the same bits.
PageStatistics coded_statistics_vnni;
#endif

// Rows that coded_values takes at most: their sums stay below 2^31.
constexpr std::uint32_t kCodedRows = 256;

// Arrays and rows of summaries have padded_dim(dim) elements, zero behind dim; key and value rows
// have dim.
struct PageKernels {
  // Welford: `rows` join the `seen` rows behind mean and square (the sum of squared differences;
  // null: only the mean). With seen = 0 the arrays' contents do not matter.
  void (*append)(const Rows &rows, std::uint32_t count, std::uint32_t dim, std::uint32_t seen,
                 float *mean, float *square);
  // out = sqrt(square / count)
  void (*deviation)(const float *square, std::uint32_t dim, std::uint32_t count, float *out);
  // Widens low and high to hold `rows`, rounded outwards; `first`: starts them.
  void (*append_bounds)(const Rows &rows, std::uint32_t count, std::uint32_t dim, bool first,
                        F16 *low, F16 *high);
  PageStatistics *statistics;        // of float16 pages
  PageStatistics *coded_statistics;  // of int8 pages; queries and their squares become int8 too
  // out[g * padded_dim(dim) + c] = sum of weights[g * stride + i] * row i, for at most kCodedRows int8 rows at one stride
  // whose scales follow each other. Weights, at least 0, become whole numbers of 32767ths of the largest with its scale.
  void (*coded_values)(const float *weights, std::size_t stride, std::uint32_t group, const Rows &rows,
                       std::uint32_t count, std::uint32_t dim, float *out, const Ahead &ahead);
  // scores[g * stride + i] = scale * sum max(q_c low_c, q_c high_c)
  void (*bounds)(const float *queries, std::uint32_t group, const Rows &low, const Rows &high,
                 std::uint32_t count, std::uint32_t dim, float scale, float *scores,
                 std::size_t stride);
  // out = scale * dot + log(1 + scale^2 quadratic / 2) + log_tokens; out may be dot
  void (*tail_logits)(const float *dot, const float *quadratic, std::size_t n, float scale,
                      float log_tokens, float *out);
  // out = scale * (dot + deviations sqrt(quadratic))
  void (*peaks)(const float *dot, const float *quadratic, std::size_t n, float scale,
                float deviations, float *out);
  // out = scale * (dot + absolute / 2); out may be absolute
  void (*scores)(const float *dot, const float *absolute, std::size_t n, float scale, float *out);
};

}  // namespace kvsift

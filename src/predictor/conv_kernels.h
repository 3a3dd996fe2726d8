// Kernels of the predictor's network.
//
// s[r][j] = sum_k conv3[k] * relu(conv2(relu(conv1(history))))[k][r][j] is one number for each history row and column;
// a score is its mean over the rows, plus a bias. The arithmetic, the same on every level and in the plain form:
//   middle channel: bias, then fma over taps (row by row, then column), then relu;
//   deep channel: bias, then fma over taps and within a tap over middle channels, then relu;
//   s: lane c is fma of deep[c] and conv3[c], then of deep[c + 16] and conv3[c + 16], from zero; then the tree;
//   taps in rows outside the window are left out, columns outside the crop are zeros in both convolutions' inputs.
// In int8: the middle channels less their empty values, times 127 / (the largest size in a place's 3x3 neighbourhood), to
// the nearest whole number (the product is not rounded before); deep channel = fma(sum of products of codes,
// (size / 127) * scale, base), then relu.
// In bf16: middle channels and conv2's weights to the nearest bf16, ties to even; all else as in float32.
// Both convolutions run over channels in lanes, so that any set of columns costs what it holds.
#pragma once

#include <cstdint>

#include "kernels/element.h"
#include "predictor/weights.h"

namespace kvsift {
constexpr std::uint32_t kStripRows = 4;

// How a history keeps its shares.
enum class HistoryForm : std::uint32_t {
  kFloat,
  kHalf,
  kRoot8  // round(255 sqrt(share)) - 128: a byte whose steps are fine where shares are small
};

// A 5x5 neighbourhood that holds nothing gives a constant, which depends only on the padding that the deep channels touch:
// [1: no row above, 2: no row below, 3: neither][0: amid the crop, 1: its first column, 2: its last]
struct EmptyScores {
  float s[4][3];
};

// Up to kStripRows consecutive rows of s, for columns [begin, end) of the crop [left, right).
struct ConvStrip {
  const PredictorWeights *weights;
  const PredictorCodes *codes;   // null: not int8
  const PredictorRounded *rounded;  // null: not bf16
  const EmptyScores *empty;      // null: compute empty neighbourhoods too; else a crop of 3 or more
  const void *rows[kStripRows + 2 * kReach];  // history rows from two before the first; null outside the window
  std::uint32_t row_columns;     // readable columns of each
  HistoryForm form;
  std::uint32_t count;           // rows of s
  std::uint32_t left, right, begin, end;
  float *out[kStripRows];
  std::uint8_t *filled[kStripRows];  // set to 1 for each kLanes columns of a row where something was computed
};

// out[j] = fma(sum over rows in order of s[row][j], scale, bias), j in [0, columns).
struct MeanRows {
  const float *ring;             // s of `ring_rows` rows at a distance of `stride`, columns from `left`
  std::uint32_t ring_rows, first, count;
  std::uint64_t stride;
  std::uint32_t left, columns;
  float scale, bias;
  float *out;
};

// Returns the (row, column) pairs computed.
using ConvStripKernel = std::uint64_t(const ConvStrip &strip);

struct PredictorKernels {
  ConvStripKernel *conv_strip;
  void (*mean_rows)(const MeanRows &mean);
  // Writes `count` shares into a history row; those below `floor` become zero.
  void (*store_row)(const float *shares, std::uint32_t count, float floor, HistoryForm form, void *row);
};

#if defined(__x86_64__)
// conv_strip of AVX-512 where the processor multiplies int8 too (VNNI).
ConvStripKernel conv_strip_vnni;
#endif

}  // namespace kvsift

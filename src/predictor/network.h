// The predictor's network over one history, kept up to date instead of computed anew.
//
// The history is a ring of rows (one for each observed query) by columns (one for each block). The window is the last
// `rows` of them, or as many as there are; the crop is the columns [left, columns - local). Beside it lies s, one number
// for each row of the window and column of the crop (conv_kernels.h). A row of s sees two history rows to each side, so
// when the window slides by one row, five rows of s change; when the crop's right edge moves, so do the last columns.
#pragma once

#include "kernels/kernels.h"

namespace kvsift {

// What all histories of a policy have in common.
struct PredictorShape {
  std::uint32_t rows;       // H
  std::uint32_t slots;      // H + how many rows may be taken back
  std::uint32_t columns;    // of both rings
  std::uint32_t left;       // sink columns
  std::uint32_t local;      // local columns
  HistoryForm form;
  float floor;              // shares below it are kept as zero
};

std::uint32_t share_bytes(HistoryForm form);

// The fastest kernel of a level for either arithmetic; all give the same bits. `multiplies_int8` as by
// machine_multiplies_int8.
ConvStripKernel *conv_strip_for(Level level, bool int8, bool multiplies_int8);

// Bytes only: can be copied and saved. Rows are numbered from the first one ever appended.
struct PredictorState {
  std::uint64_t oldest, end;           // rows in the ring
  std::uint64_t s_begin, s_end;        // rows that have an s
  std::uint64_t s_top, s_bottom;       // the window it was computed in
  std::uint32_t s_right;               // and its crop's right edge
  std::uint32_t columns;               // in use
  std::uint64_t computed, total;       // (row, column) pairs since reset, and those of the plain form
  EmptyScores empty;
};

// One history, wherever its parts lie.
struct PredictorHistory {
  PredictorShape shape;
  const PredictorWeights *weights;
  const PredictorCodes *codes;   // not null: the second convolution in int8
  const PredictorRounded *rounded;  // not null: in bf16
  const PredictorKernels *kernels;
  ConvStripKernel *conv_strip;   // see conv_strip_for
  PredictorState *state;
  void *ring;      // [slots][columns] in the shape's form
  float *s;        // [rows][columns]
  std::uint8_t *filled;  // [rows][groups_of(columns)]: whether s is other than that of empty neighbourhoods
};

// Columns in groups of kLanes.
constexpr std::uint32_t groups_of(std::uint32_t columns) { return padded_dim(columns) / kLanes; }

void predictor_reset(const PredictorHistory &h);

// Appends the pooled row of a query whose cache had `columns` blocks (not fewer than the rows before).
void predictor_append(const PredictorHistory &h, const float *shares, std::uint32_t columns);

// Asks memory for what the next append writes.
void predictor_ask(const PredictorHistory &h, std::uint64_t row, std::uint32_t columns);

// Takes back the last `rows` rows; the cache is left with `columns` blocks.
void predictor_truncate(const PredictorHistory &h, std::uint32_t rows, std::uint32_t columns);

// Whether that many rows can be taken back without losing older ones of the window.
bool predictor_can_truncate(const PredictorHistory &h, std::uint64_t rows);

// Scores of the crop's columns, which all are 1 where there are fewer than 3, to scores[left] and on. Returns the crop's
// right edge (left where the crop is empty). `plain` computes everything anew, to the same bits.
std::uint32_t predictor_scores(const PredictorHistory &h, bool plain, float *scores);

// One share of the window, row 0 being the oldest.
float predictor_share(const PredictorHistory &h, std::uint32_t row, std::uint32_t column);
std::uint32_t predictor_rows(const PredictorHistory &h);

}  // namespace kvsift

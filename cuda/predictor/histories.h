// The histories of one layer as kernels find them: bytes of the policy's units (predictor/network.h,
// methods/attention_predictor.h), and what the device needs besides.
#pragma once

#include <cstdint>

#include "methods/attention_predictor.h"

namespace kvsift {

// Consecutive rows of s, counted from the window's first, whose columns from `first` on are to be computed: in strips of
// up to kStripRows rows, each cut into `tiles` stretches of columns.
struct PlannedRows {
  std::uint32_t row, count, first, tiles;
};

// What the next prediction of one list computes; written by the planning kernel, read by those that follow it.
struct PredictionPlan {
  std::uint64_t begin;        // the window's first row
  std::uint32_t rows;
  std::uint32_t columns;      // that get a score; 0: nothing is to be done
  std::uint32_t left, right;  // the crop; empty where right <= left
  std::uint32_t too_few;      // the crop's scores all are 1
  std::uint32_t ring_slot, s_slot;  // of the first row, in the ring and in s
  float scale, nothing;       // 1 / rows; the score of a column that is empty in all rows
  PlannedRows part[3];        // the window's top, those that keep what they have but for the last columns, its bottom
};

struct Histories {
  char *units;                // the first KV head's
  std::uint64_t unit_bytes;
  std::uint32_t heads, lists;
  std::uint64_t counters;     // places in a unit
  std::uint64_t states, marks, lengths, ring, s, filled, scores;
  PredictorShape shape;
  std::uint32_t block_tokens, period;
  std::uint32_t plain;        // everything is computed anew
  kvsift_type arithmetic;     // the second convolution's
  const kvsift_predictor *predictor;
  PredictionPlan *plans;      // [heads][lists]
  std::uint32_t *arrivals;    // [heads][lists], zero between kernels
};

// Where a policy's histories lie; `units`, `heads`, `predictor`, `plans` and `arrivals` are left to the caller.
Histories histories_of(const Settings &settings, const UnitOffsets &unit);

}  // namespace kvsift

// One history on the device.
#pragma once

#include "cuda/core/last.cuh"
#include "cuda/predictor/histories.h"

namespace kvsift {
namespace {

using attention_predictor::kNever;
using attention_predictor::Marks;

__device__ inline std::uint32_t bytes_of_share(HistoryForm form) {
  return form == HistoryForm::kFloat ? 4u : form == HistoryForm::kHalf ? 2u : 1u;
}

// Rows are counted in 64 bits; a device divides those by a long routine, and hardly ever has to.
__device__ inline std::uint32_t remainder_of(std::uint64_t row, std::uint32_t by) {
  return row >> 32 == 0 ? static_cast<std::uint32_t>(row) % by : static_cast<std::uint32_t>(row % by);
}

// List `list` of KV head `head`.
struct History {
  const Histories &all;
  char *unit;
  std::uint32_t list;

  __device__ History(const Histories &h, std::uint32_t index)
      : all(h), unit(h.units + index / h.lists * h.unit_bytes), list(index % h.lists) {}

  template <class T>
  __device__ T *at(std::uint64_t offset) const {
    return reinterpret_cast<T *>(unit + offset);
  }
  __device__ PredictorState &state() const { return at<PredictorState>(all.states)[list]; }
  __device__ Marks &marks() const { return *at<Marks>(all.marks); }
  __device__ Counters &counters() const { return *at<Counters>(all.counters); }
  __device__ std::uint32_t &length(std::uint64_t row) const { return at<std::uint32_t>(all.lengths)[remainder_of(row, all.shape.slots)]; }
  // Row `slot` of s, and of its marks; a window's rows begin at the plan's s_slot.
  __device__ float *s(std::uint32_t slot) const {
    return at<float>(all.s) + (std::uint64_t{list} * all.shape.rows + slot) * all.shape.columns;
  }
  __device__ std::uint8_t *filled(std::uint32_t slot) const {
    const std::uint64_t groups = (all.shape.columns + kLanes - 1) / kLanes;
    return at<std::uint8_t>(all.filled) + (std::uint64_t{list} * all.shape.rows + slot) * groups;
  }
  __device__ std::uint32_t s_slot(const PredictionPlan &plan, std::uint32_t row) const {
    const std::uint32_t slot = plan.s_slot + row;
    return slot < all.shape.rows ? slot : slot - all.shape.rows;
  }
  __device__ float *scores() const { return at<float>(all.scores) + std::uint64_t{list} * all.shape.columns; }
  __device__ char *slot(std::uint64_t slot) const {
    const std::uint64_t row = std::uint64_t{list} * all.shape.slots + slot;
    return at<char>(all.ring) + row * all.shape.columns * bytes_of_share(all.shape.form);
  }
  template <class Stored>
  __device__ const Stored *stored(std::uint32_t slot) const {
    return at<const Stored>(all.ring) + std::uint64_t{list * all.shape.slots + slot} * all.shape.columns;
  }
  __device__ char *row(std::uint64_t row) const { return slot(remainder_of(row, all.shape.slots)); }

  // Blocks of the cache after `rows` rows.
  __device__ std::uint32_t columns_at(std::uint64_t rows) const {
    if (rows == 0) return 0;
    const std::uint32_t tokens = length(rows - 1);
    return tokens / all.block_tokens + (tokens % all.block_tokens != 0);
  }
  __device__ std::uint64_t window_begin(std::uint64_t end) const {
    const std::uint64_t begin = end < all.shape.rows ? 0 : end - all.shape.rows, oldest = state().oldest;
    return begin > oldest ? begin : oldest;
  }
};

__device__ inline float share_of(float stored) { return stored; }
__device__ inline float share_of(F16 stored) { return widen(stored); }
__device__ inline float share_of(std::int8_t stored) {
  const float root = (widen(stored) + 128.0f) * (1.0f / 255.0f);
  return root * root;
}

__device__ inline float share_at(const char *row, HistoryForm form, std::uint32_t column) {
  if (form == HistoryForm::kFloat) return share_of(reinterpret_cast<const float *>(row)[column]);
  if (form == HistoryForm::kHalf) return share_of(reinterpret_cast<const F16 *>(row)[column]);
  return share_of(reinterpret_cast<const std::int8_t *>(row)[column]);
}

__device__ inline void put_share(char *row, HistoryForm form, std::uint32_t column, float share) {
  if (form == HistoryForm::kFloat) {
    reinterpret_cast<float *>(row)[column] = share;
  } else if (form == HistoryForm::kHalf) {
    reinterpret_cast<F16 *>(row)[column] = narrow_half(share);
  } else {
    const float most = share < 1.0f ? share : 1.0f;
    const float code = __fmaf_rn(__fsqrt_rn(most), 255.0f, kRound) - kRound;
    reinterpret_cast<std::int8_t *>(row)[column] = static_cast<std::int8_t>(code - 128.0f);
  }
}

}  // namespace
}  // namespace kvsift

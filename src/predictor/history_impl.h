// Rows of a history, to and from float32, and their mean in the network's last step.
#pragma once

#include "kernels/element.h"
#include "kernels/load_part.h"
#include "predictor/conv_kernels.h"

namespace kvsift {
namespace {

template <class V>
V share_of(V x, const void *) {
  return x;
}
template <class V>
V share_of(V x, const std::int8_t *) {
  const V root = mul(add(x, V::broadcast(128.0f)), V::broadcast(1.0f / 255.0f));
  return mul(root, root);
}

template <class V, class T>
void load_shares(const T *row, std::uint32_t begin, std::uint32_t end, std::uint32_t readable, float *out) {
  std::uint32_t j = begin;
  for (; j < end && j + kLanes <= readable; j += kLanes, out += kLanes) {
    store(out, share_of(V::load(row + j), row));
  }
  if (j >= end) return;
  T rest[kLanes] = {};
  float shares[kLanes];
  __builtin_memcpy(rest, row + j, (end - j) * sizeof(T));
  store(shares, share_of(V::load(rest), row));
  __builtin_memcpy(out, shares, (end - j) * sizeof(float));
}

// Columns [begin, end) of a row; up to 15 floats beyond them are written too.
template <class V>
void load_shares(const void *row, HistoryForm form, std::uint32_t begin, std::uint32_t end,
                 std::uint32_t readable, float *out) {
  switch (form) {
    case HistoryForm::kFloat:
      return load_shares<V>(static_cast<const float *>(row), begin, end, readable, out);
    case HistoryForm::kHalf:
      return load_shares<V>(static_cast<const F16 *>(row), begin, end, readable, out);
    case HistoryForm::kRoot8:
      return load_shares<V>(static_cast<const std::int8_t *>(row), begin, end, readable, out);
  }
}

template <class V>
V stored_of(V x, const void *) {
  return x;
}
template <class V>
V stored_of(V x, const std::int8_t *) {
  // Adding and taking away 1.5 * 2^23 rounds to a whole number.
  const V round = V::broadcast(12582912.0f);
  const V code = sub(fma(sqrt(min(x, V::broadcast(1.0f))), V::broadcast(255.0f), round), round);
  return sub(code, V::broadcast(128.0f));
}

template <class V, class T>
void store_shares(const float *shares, std::uint32_t count, float floor, T *row) {
  const V least = V::broadcast(floor);
  std::uint32_t j = 0;
  for (; j + kLanes <= count; j += kLanes) {
    const V x = V::load(shares + j);
    store(row + j, stored_of(where_less(x, least, V::zero(), x), row));
  }
  if (j == count) return;
  T out[kLanes];
  const V x = load_part<V>(shares + j, count - j);
  store(out, stored_of(where_less(x, least, V::zero(), x), row));
  __builtin_memcpy(row + j, out, (count - j) * sizeof(T));
}

template <class V>
void store_row(const float *shares, std::uint32_t count, float floor, HistoryForm form,
               void *row) {
  switch (form) {
    case HistoryForm::kFloat:
      return store_shares<V>(shares, count, floor, static_cast<float *>(row));
    case HistoryForm::kHalf:
      return store_shares<V>(shares, count, floor, static_cast<F16 *>(row));
    case HistoryForm::kRoot8:
      return store_shares<V>(shares, count, floor, static_cast<std::int8_t *>(row));
  }
}

// out += rows, one after the other. Whole rows at a time: the ring is read as a few long streams.
template <class V, std::uint32_t Rows>
void add_rows(const float *const *rows, std::uint32_t columns, float *out) {
  std::uint32_t j = 0;
  for (; j + kLanes <= columns; j += kLanes) {
    V sum = V::load(out + j);
    for (std::uint32_t r = 0; r < Rows; ++r) sum = add(sum, V::load(rows[r] + j));
    store(out + j, sum);
  }
  for (; j < columns; ++j) {
    for (std::uint32_t r = 0; r < Rows; ++r) out[j] += rows[r][j];
  }
}

template <class V>
void mean_rows(const MeanRows &m) {
  constexpr std::uint32_t kAtOnce = 4;
  for (std::uint32_t j = 0; j < m.columns; ++j) m.out[j] = 0;
  std::uint32_t slot = m.first;
  for (std::uint32_t r = 0; r < m.count;) {
    const std::uint32_t count = m.count - r < kAtOnce ? 1 : kAtOnce;
    const float *rows[kAtOnce];
    for (std::uint32_t i = 0; i < count; ++i) {
      rows[i] = m.ring + slot * m.stride + m.left;
      if (++slot == m.ring_rows) slot = 0;
    }
    if (count == kAtOnce) {
      add_rows<V, kAtOnce>(rows, m.columns, m.out);
    } else {
      add_rows<V, 1>(rows, m.columns, m.out);
    }
    r += count;
  }
  for (std::uint32_t j = 0; j < m.columns; ++j) m.out[j] = __builtin_fmaf(m.out[j], m.scale, m.bias);
}

}  // namespace
}  // namespace kvsift

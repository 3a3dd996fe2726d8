// Rows of a history, to and from float32, and their mean in the network's last step.
#pragma once

#include "kernels/element.h"
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
  for (std::uint32_t j = 0; j < count; j += kLanes) {
    const std::uint32_t n = count - j < kLanes ? count - j : kLanes;
    float in[kLanes] = {};
    T out[kLanes];
    __builtin_memcpy(in, shares + j, n * sizeof(float));
    const V x = V::load(in);
    store(out, stored_of(where_less(x, V::broadcast(floor), V::zero(), x), row));
    __builtin_memcpy(row + j, out, n * sizeof(T));
  }
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

template <class V, std::uint32_t Vectors>
void mean_columns(const MeanRows &m, std::uint32_t at, float *out) {
  V sum[Vectors];
  for (std::uint32_t v = 0; v < Vectors; ++v) sum[v] = V::zero();
  std::uint32_t slot = m.first;
  for (std::uint32_t r = 0; r < m.count; ++r) {
    const float *row = m.ring + slot * m.stride + m.left + at;
    for (std::uint32_t v = 0; v < Vectors; ++v) sum[v] = add(sum[v], V::load(row + kLanes * v));
    if (++slot == m.ring_rows) slot = 0;
  }
  for (std::uint32_t v = 0; v < Vectors; ++v) {
    store(out + kLanes * v, fma(sum[v], V::broadcast(m.scale), V::broadcast(m.bias)));
  }
}

template <class V>
void mean_rows(const MeanRows &m) {
  std::uint32_t j = 0;
  for (; j + 4 * kLanes <= m.columns; j += 4 * kLanes) mean_columns<V, 4>(m, j, m.out + j);
  for (; j + kLanes <= m.columns; j += kLanes) mean_columns<V, 1>(m, j, m.out + j);
  for (; j < m.columns; ++j) {
    float sum = 0;
    std::uint32_t slot = m.first;
    for (std::uint32_t r = 0; r < m.count; ++r) {
      sum += m.ring[slot * m.stride + m.left + j];
      if (++slot == m.ring_rows) slot = 0;
    }
    m.out[j] = __builtin_fmaf(sum, m.scale, m.bias);
  }
}

}  // namespace
}  // namespace kvsift

// Reading a group's rows: their mean, and panels for the Gram matrix.
#pragma once

#include "balance/balance_kernels.h"
#include "balance/transpose.h"
#include "kernels/load_part.h"

namespace kvsift {
namespace {

// Coordinates [first, first + 16) of a row times its factor, zero beyond `dim`.
template <class V, class T>
V balance_load(const BalanceRow &row, std::uint32_t first, std::uint32_t dim) {
  const T *p = static_cast<const T *>(row.data) + first;
  const V x = mul(dim - first < kLanes ? load_part<V>(p, dim - first) : V::load(p),
                  V::broadcast(row.factor));
  return max(min(x, V::broadcast(kMostCoordinate)), V::broadcast(-kMostCoordinate));
}

// Columns first .. first + 16 * Chunks.
template <class V, class T, std::uint32_t Chunks>
void mean_columns(const BalanceRows &rows, std::uint32_t first, float share, float *mean) {
  V sum[Chunks];
  for (V &s : sum) s = V::zero();
  for (std::uint32_t i = 0; i < rows.count; ++i)
    for (std::uint32_t c = 0; c < Chunks; ++c)
      sum[c] = add(sum[c], balance_load<V, T>(rows.rows[i], first + c * kLanes, rows.dim));
  for (std::uint32_t c = 0; c < Chunks; ++c)
    store(mean + first + c * kLanes, mul(sum[c], V::broadcast(share)));
}

template <class V>
void balance_mean(const BalanceRows &rows, float share, float *mean) {
  with_type(rows.type, [&](auto element) {
    using T = decltype(element);
    std::uint32_t c = 0;
    for (; c + 8 * kLanes <= rows.dim; c += 8 * kLanes) mean_columns<V, T, 8>(rows, c, share, mean);
    for (; c < rows.dim; c += kLanes) mean_columns<V, T, 1>(rows, c, share, mean);
  });
}

// Tokens first .. first + 16 to one panel; the ones beyond `count` are zero.
template <class V, class T>
void pack_panel(const BalanceRows &rows, std::uint32_t first, const float *centre, float *panel,
                float *square_norms) {
  V squares = V::zero();
  for (std::uint32_t c = 0; c < rows.dim; c += kLanes) {
    const V middle = centre == nullptr ? V::zero() : V::load(centre + c);
    V in[kLanes];
    for (std::uint32_t r = 0; r < kLanes; ++r) {
      in[r] = V::zero();
      if (first + r < rows.count)
        in[r] = sub(balance_load<V, T>(rows.rows[first + r], c, rows.dim), middle);
    }
    V out[kLanes];
    transpose16<V>(in, out);
    for (std::uint32_t r = 0; r < kLanes; ++r) {
      store(panel + (c + r) * kLanes, out[r]);
      squares = fma(out[r], out[r], squares);
    }
  }
  store(square_norms, squares);
}

template <class V>
void balance_pack(const BalanceRows &rows, const float *centre, float *panels,
                  float *square_norms) {
  with_type(rows.type, [&](auto element) {
    using T = decltype(element);
    const std::uint64_t padded = padded_dim(rows.dim);
    for (std::uint32_t first = 0; first < rows.count; first += kLanes)
      pack_panel<V, T>(rows, first, centre, panels + first * padded, square_norms + first);
  });
}

}  // namespace
}  // namespace kvsift

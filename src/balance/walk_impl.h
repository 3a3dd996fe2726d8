// The self-balancing walk over one group: Gram tiles with a fused exponential, folded into each
// token's running sum as soon as the signs are known. Only the lower triangle is computed.
#pragma once

#include "balance/balance_kernels.h"
#include "kernels/exp.h"

namespace kvsift {
namespace {

// Tokens j (rows) and panels of tokens i (columns) that the registers of an instruction set hold at
// once.
template <class V>
struct GramTile {
  static constexpr std::uint32_t kRows = 4, kPanels = 1;
};
#if defined(__AVX512F__)
template <>
struct GramTile<Avx512> {
  static constexpr std::uint32_t kRows = 8, kPanels = 2;
};
#endif

// products[r][p] = <token r of `rows`, the 16 tokens of panel p>
template <class V, std::uint32_t R, std::uint32_t P>
inline void gram_products(const float *rows, const float *panels, std::uint64_t stride,
                          std::uint32_t dim, V (&products)[R][P]) {
  V sum[R][P];
  for (std::uint32_t r = 0; r < R; ++r)
    for (std::uint32_t p = 0; p < P; ++p) sum[r][p] = V::zero();
  for (std::uint32_t c = 0; c < dim; ++c) {
    V column[P];
    for (std::uint32_t p = 0; p < P; ++p) column[p] = V::load(panels + p * stride + c * kLanes);
    for (std::uint32_t r = 0; r < R; ++r) {
      const V row = V::broadcast(rows[c * kLanes + r]);
      for (std::uint32_t p = 0; p < P; ++p) sum[r][p] = fma(row, column[p], sum[r][p]);
    }
  }
  for (std::uint32_t r = 0; r < R; ++r)
    for (std::uint32_t p = 0; p < P; ++p) products[r][p] = sum[r][p];
}

// One walk's operands and the vector constants of its kernel.
template <class V>
struct WalkState {
  const BalanceWalk *walk;
  std::uint64_t stride;  // floats a panel
  V saturated;

  explicit WalkState(const BalanceWalk *w)
      : walk(w), stride(std::uint64_t{kLanes} * padded_dim(w->dim)), saturated(V::zero()) {}

  const float *token(const float *panels, std::uint32_t i) const {
    return panels + i / kLanes * stride + i % kLanes;
  }

  // K of tokens j .. j + R against panels first .. first + P.
  template <std::uint32_t R, std::uint32_t P>
  void kernel(std::uint32_t j, std::uint32_t first, V (&k)[R][P]) {
    gram_products<V, R, P>(token(walk->keys, j), walk->keys + first * stride, stride, walk->dim, k);
    const V most = V::broadcast(kMostExponent), one = V::broadcast(1.0f);
    for (std::uint32_t r = 0; r < R; ++r)
      for (std::uint32_t p = 0; p < P; ++p) {
        const V x = fma(V::broadcast(walk->key_scale), k[r][p], V::broadcast(-walk->shift));
        saturated = add(saturated, where_less(most, x, one, V::zero()));
        k[r][p] = exp(min(x, most));
      }
    if (walk->values == nullptr) {
      for (std::uint32_t r = 0; r < R; ++r)
        for (std::uint32_t p = 0; p < P; ++p)
          k[r][p] = mul(k[r][p], V::broadcast(walk->value_offset));
      return;
    }
    V v[R][P];
    gram_products<V, R, P>(token(walk->values, j), walk->values + first * stride, stride, walk->dim,
                           v);
    for (std::uint32_t r = 0; r < R; ++r)
      for (std::uint32_t p = 0; p < P; ++p)
        k[r][p] = mul(k[r][p], fma(V::broadcast(walk->value_scale), v[r][p],
                                   V::broadcast(walk->value_offset)));
  }

  // Adds the signed kernel of all tokens before the strip to its sums.
  template <std::uint32_t R, std::uint32_t P>
  void fold_before(std::uint32_t first) {
    V sum[P];
    for (std::uint32_t p = 0; p < P; ++p) sum[p] = V::zero();
    for (std::uint32_t j = 0; j < first * kLanes; j += R) {
      V k[R][P];
      kernel<R, P>(j, first, k);
      for (std::uint32_t r = 0; r < R; ++r)
        for (std::uint32_t p = 0; p < P; ++p)
          sum[p] = fma(k[r][p], V::broadcast(walk->signs[j + r]), sum[p]);
    }
    for (std::uint32_t p = 0; p < P; ++p) store(walk->sums + (first + p) * kLanes, sum[p]);
  }

  // K among the strip's own tokens: row j of `block` has P panels, those before j's own are left
  // out.
  template <std::uint32_t R, std::uint32_t P, std::uint32_t Strip>
  void diagonal(std::uint32_t first, float (*block)[Strip * kLanes]) {
    for (std::uint32_t j = 0; j < kLanes; j += R) {
      V k[R][P];
      kernel<R, P>(first * kLanes + j, first, k);
      for (std::uint32_t r = 0; r < R; ++r)
        for (std::uint32_t p = 0; p < P; ++p) store(block[j + r] + p * kLanes, k[r][p]);
    }
    if constexpr (P > 1) diagonal<R, P - 1, Strip>(first + 1, shifted<Strip>(block));
  }

  // The block from its second panel on: 16 rows down, 16 columns right.
  template <std::uint32_t Strip>
  static float (*shifted(float (*block)[Strip * kLanes]))[Strip * kLanes] {
    return reinterpret_cast<float(*)[Strip * kLanes]>(&block[kLanes][kLanes]);
  }

  float sign_of(std::uint32_t i, float sum, std::uint64_t *failures) const {
    if (i == 0 && walk->first_is_plus) return 1.0f;
    if (__builtin_fabsf(sum) > walk->limit) ++*failures;
    return walk->uniforms[i] < __builtin_fmaf(-walk->gamma, sum, 0.5f) ? 1.0f : -1.0f;
  }

  // Signs of P panels of tokens, one after another.
  template <std::uint32_t R, std::uint32_t P>
  void strip(std::uint32_t first, std::uint64_t *failures) {
    fold_before<R, P>(first);
    float block[P * kLanes][P * kLanes];
    diagonal<R, P, P>(first, block);
    float *sums = walk->sums + first * kLanes, *signs = walk->signs + first * kLanes;
    for (std::uint32_t j = 0; j < P * kLanes; ++j) {
      const std::uint32_t i = first * kLanes + j;
      if (i >= walk->count) {
        signs[j] = 0.0f;
        continue;
      }
      signs[j] = sign_of(i, sums[j], failures);
      const V sign = V::broadcast(signs[j]);
      // Spoils the sums of tokens up to j in its own panel, after their last use.
      for (std::uint32_t p = j / kLanes; p < P; ++p)
        store(sums + p * kLanes,
              fma(V::load(block[j] + p * kLanes), sign, V::load(sums + p * kLanes)));
    }
  }
};

template <class V>
void balance_walk(BalanceWalk *walk) {
  constexpr std::uint32_t kRows = GramTile<V>::kRows, kPanels = GramTile<V>::kPanels;
  WalkState<V> state(walk);
  const std::uint32_t panels = padded_dim(walk->count) / kLanes;
  std::uint32_t first = 0;
  for (; first + kPanels <= panels; first += kPanels)
    state.template strip<kRows, kPanels>(first, &walk->failures);
  for (; first < panels; ++first) state.template strip<kRows, 1>(first, &walk->failures);
  walk->saturated += static_cast<std::uint64_t>(reduce_add(state.saturated));
}

}  // namespace
}  // namespace kvsift

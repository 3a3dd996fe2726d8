// Dot products of queries with rows: lane i adds elements i, i + 16, ... by fma, then the tree.
#pragma once

#include "kernels/dot_pairs_impl.h"

namespace kvsift {
namespace {

// sum[k][n] from accumulate(c, pieces), which fills the pieces that begin at element c. Where a
// vector is two registers the halves are worked on one after the other, so that the accumulators
// fit.
template <class V, std::uint32_t Q, std::uint32_t N, class F>
inline __attribute__((always_inline)) void by_pieces(V (&sum)[Q][N], F accumulate) {
  if constexpr (V::kPieces == 1) {
    accumulate(0, sum);
  } else {
    typename V::Piece low[Q][N], high[Q][N];
    accumulate(0, low);
    accumulate(kLanes / 2, high);
    each<Q>([&](std::uint32_t k) {
      each<N>([&](std::uint32_t n) { sum[k][n] = V::join(low[k][n], high[k][n]); });
    });
  }
}

template <class V, std::uint32_t Q, std::uint32_t N>
inline __attribute__((always_inline)) void put_sums(const V (*sum)[N], float *out,
                                                    std::size_t stride) {
  if constexpr (N == 4) {
    each<Q>([&](std::uint32_t k) {
      reduce_add4(sum[k][0], sum[k][1], sum[k][2], sum[k][3], out + k * stride);
    });
  } else if constexpr (Q == 4) {
    each<N>([&](std::uint32_t n) {
      float column[4];
      reduce_add4(sum[0][n], sum[1][n], sum[2][n], sum[3][n], column);
      for (std::uint32_t k = 0; k < 4; ++k) out[k * stride + n] = column[k];
    });
  } else {
    each<Q>([&](std::uint32_t k) {
      each<N>([&](std::uint32_t n) { out[k * stride + n] = reduce_add(sum[k][n]); });
    });
  }
}

// Queries q .. q + Q - 1 with rows i .. i + N - 1, not yet scaled.
template <class V, class At, class T, std::uint32_t Q, std::uint32_t N, Form F>
void dot_tile(const DotJob &job, const Rows &rows, std::uint32_t q, std::uint32_t i) {
  using Piece = typename V::Piece;
  const float *queries = job.queries + static_cast<std::size_t>(q) * job.dim16;
  const typename At::template Rows<T, N> row(rows, i);
  constexpr bool cut = F == Form::kCut;
  const std::uint32_t whole = cut ? job.dim - job.dim % kLanes : job.dim, dim16 = job.dim16;
  const bool asks = q == 0 && asks_by_lines<N>(job, rows, i);
  const typename At::template Rows<std::uint8_t, N> coming(asks ? job.ahead.rows : rows, asks ? i + job.lead : i);
  V sum[Q][N];
  by_pieces<V>(
      sum, [=](std::uint32_t begin, Piece(&acc)[Q][N]) __attribute__((always_inline)) {
        each<Q>(
            [&](std::uint32_t k) { each<N>([&](std::uint32_t n) { acc[k][n] = Piece::zero(); }); });
        for (std::uint32_t c = begin; c < whole; c += kLanes) {
          Piece key[N];
          // Not all at once: requests that find no place are dropped.
          if (begin == 0 && asks && c * sizeof(T) % kLineBytes == 0)
            each<N>([&](std::uint32_t n) { ask_for_line(coming[n] + c * sizeof(T)); });
          each<N>([&](std::uint32_t n) {
            key[n] = Piece::load(row[n] + c);
            if constexpr (F == Form::kSquared) key[n] = mul(key[n], key[n]);
          });
          each<Q>([&](std::uint32_t k) {
            const Piece x = Piece::load(queries + k * dim16 + c);
            each<N>([&](std::uint32_t n) { acc[k][n] = fma(x, key[n], acc[k][n]); });
          });
        }
      });
  for (std::uint32_t n = 0; cut && n < N; ++n) {
    const V key = load_part<V>(row[n] + whole, job.dim - whole);
    for (std::uint32_t k = 0; k < Q; ++k)
      sum[k][n] = fma(V::load(queries + k * dim16 + whole), key, sum[k][n]);
  }
  put_sums<V, Q, N>(sum, job.logits + q * job.stride + i, job.stride);
}

// All queries with N rows.
template <class V, class At, class T, std::uint32_t N, Form F>
void dot_tokens(const DotJob &job, const Rows &rows, std::uint32_t group, std::uint32_t i) {
  constexpr std::uint32_t Q = V::kQueryTile, tile = V::kTokenTile < N ? V::kTokenTile : N;
  std::uint32_t q = 0;
  for (; q + Q <= group; q += Q)
    for (std::uint32_t n = 0; n < N; n += tile) dot_tile<V, At, T, Q, tile, F>(job, rows, q, i + n);
  for (; q < group; ++q) dot_tile<V, At, T, 1, N, F>(job, rows, q, i);
}

// Rows in fours, and queries in fours but for the last; returns how many rows that were.
template <class V, class At, class T, Form F>
std::uint32_t dot_fours(const DotJob &job, const Rows &rows, std::uint32_t group, std::uint32_t count) {
  const std::uint32_t whole = count / 4 * 4;
  dot_pairs<V, At, T, F>(job, rows, group / kPairQueries * kPairQueries, whole);
  for (std::uint32_t q = group / kPairQueries * kPairQueries; q < group; ++q)
    for (std::uint32_t i = 0; i < whole; i += 4) dot_tile<V, At, T, 1, 4, F>(job, rows, q, i);
  return whole;
}

template <class V, class At, class T, Form F>
void dot_run(const DotJob &job, const Rows &rows, std::uint32_t group, std::uint32_t count) {
  std::uint32_t i = 0;
  // Float rows are twice the bytes: what they take is waiting for memory.
  if constexpr (kInPairs<V> && F != Form::kCut && sizeof(T) < sizeof(float)) {
    if (goes_in_pairs(job, group)) i = dot_fours<V, At, T, F>(job, rows, group, count);
  }
  for (; i + 4 <= count; i += 4) dot_tokens<V, At, T, 4, F>(job, rows, group, i);
  for (; i < count; ++i) dot_tokens<V, At, T, 1, F>(job, rows, group, i);
}

// Two products, the row's scale first.
template <class V>
void scale_logits(const Rows &rows, std::uint32_t count, float scale, float *logits) {
  if (rows.scales != nullptr)
    for (std::uint32_t i = 0; i < count; ++i) logits[i] *= scale_of(rows, i);
  const V s = V::broadcast(scale);
  std::uint32_t i = 0;
  for (; i + kLanes <= count; i += kLanes) store(logits + i, mul(V::load(logits + i), s));
  for (; i < count; ++i) logits[i] *= scale;
}

template <class V>
void dot_rows_ahead(const float *queries, std::uint32_t group, const Rows &rows,
                    std::uint32_t count, std::uint32_t dim, float scale, float *logits,
                    std::size_t stride, const Ahead &ahead) {
  const DotJob job{queries, dim, padded_dim(dim), logits, stride, ahead, 0};
  with_type(rows.type, [&](auto element) {
    using T = decltype(element);
    by_places<V>(rows, [&](auto places) {
      using At = decltype(places);
      auto *run = dim % kLanes != 0 ? dot_run<V, At, T, Form::kCut> : dot_run<V, At, T, Form::kWhole>;
      run(job, rows, group, count);
    });
  });
  for (std::uint32_t g = 0; g < group; ++g)
    scale_logits<V>(rows, count, scale, logits + g * stride);
}

template <class V>
void dot_rows(const float *queries, std::uint32_t group, const Rows &rows, std::uint32_t count,
              std::uint32_t dim, float scale, float *logits, std::size_t stride) {
  dot_rows_ahead<V>(queries, group, rows, count, dim, scale, logits, stride, Ahead{});
}

}  // namespace
}  // namespace kvsift

// Dot products of queries with rows: lane i adds elements i, i + 16, ... by fma, then the tree.
#pragma once

#include "kernels/load_part.h"

namespace kvsift {
namespace {

struct DotJob {
  const float *queries;
  std::uint32_t dim, dim16;
  float scale;
  float *logits;
  std::size_t stride;
};

template <class V, std::uint32_t Q, std::uint32_t N>
void accumulate(const DotJob &job, const float *queries, std::uint32_t c, const V (&keys)[N], V (&acc)[Q][N]) {
  for (std::uint32_t q = 0; q < Q; ++q) {
    const V x = V::load(queries + q * job.dim16 + c);
    for (std::uint32_t n = 0; n < N; ++n) acc[q][n] = fma(x, keys[n], acc[q][n]);
  }
}

// Sums of the accumulators into sums[q][n].
template <class V, std::uint32_t Q, std::uint32_t N>
void reduce_tile(const V (&acc)[Q][N], float (&sums)[Q][N]) {
  if constexpr (N == 4) {
    for (std::uint32_t q = 0; q < Q; ++q)
      reduce_add4(acc[q][0], acc[q][1], acc[q][2], acc[q][3], sums[q]);
  } else if constexpr (Q == 4 && N == 1) {
    reduce_add4(acc[0][0], acc[1][0], acc[2][0], acc[3][0], sums[0]);
  } else {
    for (std::uint32_t q = 0; q < Q; ++q)
      for (std::uint32_t n = 0; n < N; ++n) sums[q][n] = reduce_add(acc[q][n]);
  }
}

// Queries q .. q + Q - 1 with rows i .. i + N - 1.
template <class V, class T, std::uint32_t Q, std::uint32_t N>
void dot_tile(const DotJob &job, const Rows &rows, std::uint32_t q, std::uint32_t i) {
  const float *queries = job.queries + static_cast<std::size_t>(q) * job.dim16;
  const T *row[N];
  V acc[Q][N], keys[N];
  for (std::uint32_t n = 0; n < N; ++n) row[n] = row_of<T>(rows, i + n);
  for (auto &line : acc)
    for (V &a : line) a = V::zero();
  std::uint32_t c = 0;
  for (; c + kLanes <= job.dim; c += kLanes) {
    for (std::uint32_t n = 0; n < N; ++n) keys[n] = V::load(row[n] + c);
    accumulate(job, queries, c, keys, acc);
  }
  if (c < job.dim) {
    for (std::uint32_t n = 0; n < N; ++n) keys[n] = load_part<V>(row[n] + c, job.dim - c);
    accumulate(job, queries, c, keys, acc);
  }
  float sums[Q][N];
  reduce_tile(acc, sums);
  for (std::uint32_t n = 0; n < N; ++n) {
    const float row_scale = scale_of(rows, i + n);
    for (std::uint32_t k = 0; k < Q; ++k)
      job.logits[(q + k) * job.stride + i + n] = sums[k][n] * row_scale * job.scale;
  }
}

// All queries with N rows.
template <class V, class T, std::uint32_t N>
void dot_tokens(const DotJob &job, const Rows &rows, std::uint32_t group, std::uint32_t i) {
  constexpr std::uint32_t tile = V::kTokenTile < N ? V::kTokenTile : N;
  std::uint32_t q = 0;
  for (; q + V::kQueryTile <= group; q += V::kQueryTile)
    for (std::uint32_t n = 0; n < N; n += tile) dot_tile<V, T, V::kQueryTile, tile>(job, rows, q, i + n);
  for (; q < group; ++q) dot_tile<V, T, 1, N>(job, rows, q, i);
}

template <class V>
void dot_rows(const float *queries, std::uint32_t group, const Rows &rows, std::uint32_t count,
              std::uint32_t dim, float scale, float *logits, std::size_t stride) {
  const DotJob job{queries, dim, padded_dim(dim), scale, logits, stride};
  with_type(rows.type, [&](auto element) {
    using T = decltype(element);
    std::uint32_t i = 0;
    for (; i + 4 <= count; i += 4) dot_tokens<V, T, 4>(job, rows, group, i);
    for (; i < count; ++i) dot_tokens<V, T, 1>(job, rows, group, i);
  });
}

}  // namespace
}  // namespace kvsift

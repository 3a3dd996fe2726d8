// Products of queries with int8 rows in whole numbers: the queries become int8 as well, each with its scale. Sums of whole
// numbers are exact, so their order is free.
#pragma once

#include "kernels/array_impl.h"
#include "kernels/dot_impl.h"

namespace kvsift {
namespace {

constexpr std::uint32_t kCodedGroup = 8, kCodedDim = 64;

// At most kCodedGroup queries, rows padded with zeros to a multiple of kCodedDim.
struct CodedQueries {
  std::int8_t code[kCodedGroup * KVSIFT_MAX_HEAD_DIM];
  std::int32_t sum[kCodedGroup];
  float scale[kCodedGroup];
};

constexpr std::uint32_t coded_dim(std::uint32_t dim16) {
  return (dim16 + kCodedDim - 1) / kCodedDim * kCodedDim;
}

template <class V>
void code_queries(const float *queries, std::uint32_t group, std::uint32_t dim16, CodedQueries *coded) {
  const std::uint32_t step = coded_dim(dim16);
  for (std::uint32_t g = 0; g < group; ++g) {
    std::int8_t *code = coded->code + g * step;
    coded->scale[g] = array_to_int8<V>(queries + g * dim16, code, dim16);
    __builtin_memset(code + dim16, 0, step - dim16);
    coded->sum[g] = 0;
    if (V::Codes::kRowOffset == 0) continue;
    for (std::uint32_t c = 0; c < dim16; ++c) coded->sum[g] += code[c];
  }
}

struct CodedJob {
  RowJob<std::int8_t> rows;
  const std::int32_t *sums;  // of the queries' codes
};

// Queries q .. q + Q - 1 with rows i .. i + N - 1.
template <class V, std::uint32_t Q, std::uint32_t N, Form F>
void coded_tile(const CodedJob &coded, const Rows &rows, std::uint32_t q, std::uint32_t i) {
  using Codes = typename V::Codes;
  const RowJob<std::int8_t> &job = coded.rows;
  const std::uint32_t step = coded_dim(job.dim16), dim16 = job.dim16;
  const std::int8_t *queries = job.queries + q * step;
  const Strided::Rows<std::int8_t, N> row(rows, i);
  const bool asks = q == 0 && asks_by_lines<N>(job, rows, i);
  const Strided::Rows<std::uint8_t, N> coming(asks ? job.ahead.rows : rows, asks ? i + job.lead : i);
  typename V::Sums sum[Q][N];
  each<Q>([&](std::uint32_t k) {
    const std::int32_t first = F == Form::kSquared ? 0 : -Codes::kRowOffset * coded.sums[q + k];
    each<N>([&](std::uint32_t n) { sum[k][n] = V::Sums::start(first); });
  });
  const auto take = [&](std::uint32_t c, std::uint32_t left) __attribute__((always_inline)) {
    Codes key[N];
    each<N>([&](std::uint32_t n) {
      key[n] = F == Form::kSquared ? Codes::squares(row[n] + c, left) : Codes::row(row[n] + c, left);
    });
    each<Q>([&](std::uint32_t k) {
      const Codes x = Codes::query(queries + k * step + c);
      each<N>([&](std::uint32_t n) { sum[k][n] = add_products(x, key[n], sum[k][n]); });
    });
  };
  std::uint32_t c = 0;
  for (; c + Codes::kCount <= dim16; c += Codes::kCount) {
    if (asks && c % kLineBytes == 0) each<N>([&](std::uint32_t n) { ask_for_line(coming[n] + c); });
    take(c, Codes::kCount);
  }
  if (Codes::kCount > kLanes && c < dim16) take(c, dim16 - c);
  float *out = job.logits + q * job.stride + i;
  if constexpr (N == 4) {
    each<Q>([&](std::uint32_t k) {
      total4(sum[k][0], sum[k][1], sum[k][2], sum[k][3], out + k * job.stride);
    });
  } else {
    static_assert(Q == 4 || N == 1, "four sums at a time");
    each<N>([&](std::uint32_t n) {
      float column[4];
      total4(sum[0][n], sum[Q == 4 ? 1 : 0][n], sum[Q == 4 ? 2 : 0][n], sum[Q == 4 ? 3 : 0][n], column);
      for (std::uint32_t k = 0; k < Q; ++k) out[k * job.stride + n] = column[k];
    });
  }
}

// All queries with N rows.
template <class V, std::uint32_t N, Form F>
void coded_rows(const CodedJob &job, const Rows &rows, std::uint32_t group, std::uint32_t i) {
  constexpr std::uint32_t Q = V::kQueryTile, tile = V::kTokenTile < N ? V::kTokenTile : N;
  std::uint32_t q = 0;
  for (; q + Q <= group; q += Q)
    for (std::uint32_t n = 0; n < N; n += tile) coded_tile<V, Q, tile, F>(job, rows, q, i + n);
  for (; q < group; ++q) coded_tile<V, 1, N, F>(job, rows, q, i);
}

}  // namespace
}  // namespace kvsift

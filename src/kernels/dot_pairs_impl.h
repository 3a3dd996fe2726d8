// Dot products of four queries with rows taken in pairs. The sums of one pair are reduced between the products of the
// next: a reduction right after its products has the multipliers wait for it.
#pragma once

#include "kernels/dot_job.h"

namespace kvsift {
namespace {

constexpr std::uint32_t kPairQueries = 4, kPairSums = 2 * kPairQueries;
// Rows that stay in the first-level cache for the next four queries.
constexpr std::uint32_t kPairRows = 32;

// Four queries, the two rows that they are multiplied with, and the two that are asked for meanwhile.
template <class T>
struct Pair {
  const float *queries;
  const T *row[2];
  const std::uint8_t *coming[2];
};

// sum[2 * k + n]: query k with row n. In registers where a vector is one, else in memory.
template <class V, std::uint32_t Pieces = V::kPieces>
struct SumsOfPair {
  using Type = V[kPairSums];
};
template <class V>
struct SumsOfPair<V, 2> {
  using Type = typename V::DotSums;
};

// Elements c and on, as many as Part has. Dim is a constant so that addresses are.
template <std::uint32_t Dim, Form F, class Part, class T>
inline __attribute__((always_inline)) void multiply_pair(const Pair<T> &pair, std::uint32_t c, Part (&sum)[kPairSums]) {
  if (c * sizeof(T) % kLineBytes == 0) {
    ask_for_line(pair.coming[0] + c * sizeof(T));
    ask_for_line(pair.coming[1] + c * sizeof(T));
  }
  Part key[2] = {Part::load(pair.row[0] + c), Part::load(pair.row[1] + c)};
  if constexpr (F == Form::kSquared) {
    key[0] = mul(key[0], key[0]);
    key[1] = mul(key[1], key[1]);
  }
  each<kPairQueries>([&](std::uint32_t k) __attribute__((always_inline)) {
    const Part x = in_register(Part::load(pair.queries + k * Dim + c));
    sum[2 * k] = fma(x, key[0], sum[2 * k]);
    sum[2 * k + 1] = fma(x, key[1], sum[2 * k + 1]);
  });
}

// The pieces of a reduction that come after step `step` of `steps`.
template <std::uint32_t Steps, class Sums>
inline __attribute__((always_inline)) void reduce_after(std::uint32_t step, Sums &sums) {
  const std::uint32_t from = kPairSums * step / Steps, to = kPairSums * (step + 1) / Steps;
  each<kPairSums>([&](std::uint32_t piece) __attribute__((always_inline)) {
    if (from <= piece && piece < to) reduce_piece(piece, sums);
  });
}

// `before`, the sums of the pair before, end up reduced.
template <std::uint32_t Dim, Form F, class V, class T>
inline __attribute__((always_inline)) void dot_pair(const Pair<T> &pair, V (&sum)[kPairSums], V (&before)[kPairSums]) {
  constexpr std::uint32_t steps = Dim / kLanes;
  each<kPairSums>([&](std::uint32_t s) __attribute__((always_inline)) { sum[s] = V::zero(); });
  each<steps>([&](std::uint32_t step) __attribute__((always_inline)) {
    multiply_pair<Dim, F>(pair, step * kLanes, sum);
    reduce_after<steps>(step, before);
  });
}

// Half of each vector's lanes, then the other.
template <std::uint32_t Dim, Form F, class Sums, class T>
inline __attribute__((always_inline)) void dot_pair(const Pair<T> &pair, Sums &sum, Sums &before) {
  using Half = typename Sums::Half;
  constexpr std::uint32_t steps = Dim / kLanes;
  each<2>([&](std::uint32_t half) __attribute__((always_inline)) {
    Half acc[kPairSums];
    each<kPairSums>([&](std::uint32_t s) __attribute__((always_inline)) { acc[s] = Half::zero(); });
    each<steps>([&](std::uint32_t step) __attribute__((always_inline)) {
      multiply_pair<Dim, F>(pair, step * kLanes + half * (kLanes / 2), acc);
      reduce_after<2 * steps>(half * steps + step, before);
    });
    each<kPairSums>([&](std::uint32_t s) __attribute__((always_inline)) { sum.put(s, half, acc[s]); });
  });
}

template <class V>
inline void clear(V (&sum)[kPairSums]) {
  each<kPairSums>([&](std::uint32_t s) __attribute__((always_inline)) { sum[s] = V::zero(); });
}

// Rows [begin, end), a multiple of four, with queries q .. q + 3. With row i row i of `coming` is asked for.
template <class V, class At, class T, Form F, std::uint32_t Dim>
void dot_pairs_of(const DotJob &job, const Rows &rows, std::uint32_t q, const Rows &coming, std::uint32_t begin,
                  std::uint32_t end) {
  const typename At::template All<T> row(rows);
  const typename At::template All<std::uint8_t> next(coming);
  const std::size_t stride = job.stride;
  const float *queries = job.queries + std::size_t{q} * Dim;
  float *out = job.logits + q * stride + begin, *before = out;
  const auto pair = [&](std::uint32_t i) __attribute__((always_inline)) {
    return Pair<T>{queries, {row[i], row[i + 1]}, {next[i], next[i + 1]}};
  };
  typename SumsOfPair<V>::Type even, odd;
  clear(odd);
  for (std::uint32_t i = begin; i < end; i += 4) {
    dot_pair<Dim, F>(pair(i), even, odd);
    // What the first round puts is not a sum yet, and written over; a branch would draw the reduction behind it.
    put_reduced(odd, before, stride);
    dot_pair<Dim, F>(pair(i + 2), odd, even);
    put_reduced(even, out, stride);
    before = out + 2;
    out += 4;
  }
  each<kPairSums>([&](std::uint32_t piece) __attribute__((always_inline)) { reduce_piece(piece, odd); });
  put_reduced(odd, before, stride);
}

// Each dimension is unrolled, which takes the address sanitizer many minutes to compile: it gets one of them, of the vectors
// that are one register. What lies out of bounds unit/kernels finds without it, in guarded memory.
#if defined(__SANITIZE_ADDRESS__)
constexpr bool kAllDims = false;
#else
constexpr bool kAllDims = true;
#endif
template <class V>
constexpr bool kInPairs = V::kPairs && (kAllDims || V::kPieces == 1);

inline bool goes_in_pairs(const DotJob &job, std::uint32_t group) {
  const bool others = kAllDims && (job.dim == 96 || job.dim == 128 || job.dim == 256);
  return group >= kPairQueries && (job.dim == 64 || others);
}

// Rows with which those to come can be asked for line by line; others that come are asked for here.
inline std::uint32_t rows_that_ask(const DotJob &job, const Rows &rows, std::uint32_t count) {
  const Ahead &ahead = job.ahead;
  std::uint32_t n = ahead.count < count ? ahead.count / 4 * 4 : count;
  if (ahead.rows.type != rows.type || (ahead.rows.list == nullptr) != (rows.list == nullptr)) n = 0;
  for (std::uint32_t i = n; i < count; ++i) ask_for(ahead, i);
  return n;
}

// `count` rows, a multiple of four, with `group` queries, another.
template <class V, class At, class T, Form F>
void dot_pairs(const DotJob &job, const Rows &rows, std::uint32_t group, std::uint32_t count) {
  const std::uint32_t step = group == kPairQueries ? count : kPairRows, asking = rows_that_ask(job, rows, count);
  for (std::uint32_t begin = 0, end; begin < count; begin = end) {
    const std::uint32_t stop = begin < asking ? asking : count;
    end = stop - begin < step ? stop : begin + step;
    for (std::uint32_t q = 0; q < group; q += kPairQueries) {
      // Rows that are at hand already cost little to ask for.
      const Rows &coming = q == 0 && begin < asking ? job.ahead.rows : rows;
      auto *run = dot_pairs_of<V, At, T, F, 64>;
      if constexpr (kAllDims) {
        if (job.dim == 96) run = dot_pairs_of<V, At, T, F, 96>;
        if (job.dim == 128) run = dot_pairs_of<V, At, T, F, 128>;
        if (job.dim == 256) run = dot_pairs_of<V, At, T, F, 256>;
      }
      run(job, rows, q, coming, begin, end);
    }
  }
}

}  // namespace
}  // namespace kvsift

// Weighted values of a chunk: rows come through shared memory, a thread has two dimensions of a few query heads and adds
// the rows in order. Weights of PageCode rows are codes (code_chunk).
#pragma once

#include <type_traits>

#include "cuda/attend/coded_values.cuh"
#include "cuda/attend/dot.cuh"
#include "cuda/core/copy.cuh"

namespace kvsift {
namespace {

struct ValueRows {
  const kvsift_view *view;  // of AnyType rows
  std::uint32_t columns;    // of a row in shared memory, even
  std::uint32_t dim;
  std::uint32_t count;
};

// Rows [stage * stage_rows, ...) on their way into their half of the stage.
template <class T>
__device__ inline void fetch_stage(const ValueRows &rows, const ChunkShared &shared, std::uint32_t stage, std::uint8_t *buffer) {
  const std::uint32_t row_bytes = rows.columns * sizeof(typename Staged<T>::Type), most = stage_rows(row_bytes);
  const std::uint32_t first = stage * most;
  std::uint8_t *to = buffer + stage % 2 * most * row_bytes;
  const std::uint32_t here = first >= rows.count ? 0 : rows.count - first < most ? rows.count - first : most;
  if constexpr (std::is_same<T, AnyType>::value) {
    auto *out = reinterpret_cast<float *>(to);
    for (std::uint32_t i = threadIdx.x; i < here * rows.columns; i += kAttendThreads) {
      const std::uint32_t row = i / rows.columns, c = i % rows.columns;
      out[i] = c < rows.dim ? element_at(shared.values[first + row], rows.view->type, c) : 0.0f;
    }
  } else {
    const std::uint32_t pieces = row_bytes / 16, each = kAttendThreads / pieces, at = threadIdx.x % pieces * 16;
    if (threadIdx.x < each * pieces) {
#pragma unroll 4
      for (std::uint32_t row = threadIdx.x / pieces; row < here; row += each) {
        copy_async(to + row * row_bytes + at, shared.values[first + row] + at);
      }
    }
  }
  end_copies();
}

__device__ inline void load2(const float *p, float (&out)[2]) {
  const float2 v = *reinterpret_cast<const float2 *>(p);
  out[0] = v.x, out[1] = v.y;
}
template <class T>
__device__ inline void load2(const T *p, float (&out)[2]) {
  out[0] = widen(p[0]), out[1] = widen(p[1]);
}
__device__ inline void load2(const F16 *p, float (&out)[2]) { unpack2<F16>(*reinterpret_cast<const unsigned *>(p), out); }
__device__ inline void load2(const BF16 *p, float (&out)[2]) { unpack2<BF16>(*reinterpret_cast<const unsigned *>(p), out); }

// A thread's part: two columns from `column` on, query heads first, first + step, ...
struct ValuePart {
  std::uint32_t column, first, step, heads;
  bool idle;
};

// Weights of `Count` neighbouring rows of one query head; rows that can have scales carry them.
template <bool Scaled, int Count>
__device__ inline void weights_of(const ChunkShared &shared, const float *weights, std::uint32_t i,
                                  float (&out)[Count]) {
  if constexpr (Count == 4) {
    load4(weights + i, out);
  } else {
    out[0] = weights[i];
  }
  if constexpr (Scaled) {
#pragma unroll
    for (int k = 0; k < Count; ++k) out[k] = out[k] * shared.value_scales[i + k];
  }
}

// Rows i .. i + Count - 1 of the chunk, the first of which lies at `row`.
template <int Heads, int Count, class T>
__device__ inline void add_rows(const ValueRows &rows, const ChunkShared &shared, const float *weights, const ValuePart &part,
                                const T *row, std::uint32_t i, float (&acc)[Heads][2]) {
  float value[Count][2];
#pragma unroll
  for (int k = 0; k < Count; ++k) load2(row + k * rows.columns, value[k]);
#pragma unroll
  for (int h = 0; h < Heads; ++h) {
    const std::uint32_t g = part.first + h * part.step, own = g < part.heads ? g : part.first;
    float weight[Count];
    weights_of<sizeof(T) != 2>(shared, weights + own * kChunk, i, weight);
#pragma unroll
    for (int k = 0; k < Count; ++k) {
      acc[h][0] = __fmaf_rn(weight[k], value[k][0], acc[h][0]);
      acc[h][1] = __fmaf_rn(weight[k], value[k][1], acc[h][1]);
    }
  }
}

template <int Heads, int Count>
__device__ inline void add_rows(const ValueRows &rows, const ChunkShared &, const float *weights, const ValuePart &part,
                                const PageCode *row, std::uint32_t i, int (&acc)[Heads][2]) {
  const auto add = [&](const auto &values) {
#pragma unroll
    for (int h = 0; h < Heads; ++h) {
      const std::uint32_t g = part.first + h * part.step, own = g < part.heads ? g : part.first;
      values.add(codes_of(weights + own * kChunk) + i, acc[h]);
    }
  };
  if constexpr (Count == 4) {
    add(FourRows(row, rows.columns));
  } else {
    add(OneRow(row));
  }
}

template <class T>
using Sum = std::conditional_t<std::is_same<T, PageCode>::value, int, float>;

__device__ inline float weighted(const ChunkShared &, std::uint32_t, float sum) { return sum; }
__device__ inline float weighted(const ChunkShared &shared, std::uint32_t g, int sum) {
  return static_cast<float>(sum) * shared.weight_units[g];
}

template <class T, int Heads>
__device__ inline void add_stage(const ValueRows &rows, const ChunkShared &shared, const float *weights, const ValuePart &part,
                                 const std::uint8_t *stage, std::uint32_t first, std::uint32_t count, Sum<T> (&acc)[Heads][2]) {
  const auto *row = reinterpret_cast<const T *>(stage) + part.column;
  std::uint32_t i = 0;
#pragma unroll 2
  for (std::uint32_t n = 0; n < count / 4; ++n, i += 4, row += 4 * rows.columns) {
    add_rows<Heads, 4>(rows, shared, weights, part, row, first + i, acc);
  }
  for (std::uint32_t n = 0; n < count % 4; ++n, ++i, row += rows.columns) {
    add_rows<Heads, 1>(rows, shared, weights, part, row, first + i, acc);
  }
}

// The stages 0 and 1 must have been fetched. `to[g]` of the part's heads receive their two columns.
template <class T, int Heads, class Put>
__device__ inline void weigh_part(const ValueRows &rows, const ChunkShared &shared, const ChunkRows &chunk, const ValuePart &part,
                                  Put put) {
  using Type = typename Staged<T>::Type;
  const std::uint32_t row_bytes = rows.columns * sizeof(Type), most = stage_rows(row_bytes);
  const std::uint32_t stages = blocks_of(rows.count, most);
  Sum<Type> acc[Heads][2] = {};
  for (std::uint32_t stage = 0; stage < stages; ++stage) {
    wait_copies<1>();
    __syncthreads();
    const std::uint8_t *buffer = chunk.stage + stage % 2 * most * row_bytes;
    const std::uint32_t first = stage * most, here = rows.count - first < most ? rows.count - first : most;
    if (!part.idle) add_stage<Type, Heads>(rows, shared, chunk.logits, part, buffer, first, here, acc);
    if (stage + 2 >= stages) {
      end_copies();
      continue;
    }
    __syncthreads();
    fetch_stage<T>(rows, shared, stage + 2, chunk.stage);
  }
#pragma unroll
  for (int h = 0; h < Heads; ++h) {
    const std::uint32_t g = part.first + h * part.step;
    if (!part.idle && g < part.heads) put(g, part.column, weighted(shared, g, acc[h][0]), weighted(shared, g, acc[h][1]));
  }
}

// A thread gets `Most` query heads at most, 1, 4 (kMostNarrow of attend.h) or 8.
template <class T, int Most, class Put>
__device__ inline void weigh_chunk(const ValueRows &rows, const ChunkShared &shared, const ChunkRows &chunk, std::uint32_t heads,
                                   Put put) {
  const std::uint32_t pairs = rows.columns / 2, step = kAttendThreads / pairs;
  ValuePart part{threadIdx.x % pairs * 2, threadIdx.x / pairs, step, heads, false};
  part.idle = part.first >= step || part.first >= heads;
  [[maybe_unused]] const std::uint32_t each = blocks_of(heads, step);
  if constexpr (Most == 1) {
    weigh_part<T, 1>(rows, shared, chunk, part, put);
  } else if (each <= 1) {
    weigh_part<T, 1>(rows, shared, chunk, part, put);
  } else if (each <= 2) {
    weigh_part<T, 2>(rows, shared, chunk, part, put);
  } else if (each <= 4) {
    weigh_part<T, 4>(rows, shared, chunk, part, put);
  } else if constexpr (Most > 4) {
    weigh_part<T, 8>(rows, shared, chunk, part, put);
  }
}

}  // namespace
}  // namespace kvsift

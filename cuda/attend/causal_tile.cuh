// A tile of causal attention: its items, and how keys and values come into shared memory.
#pragma once

#include <type_traits>

#include "attend/chunk.h"
#include "cuda/attend/causal.h"
#include "cuda/attend/element.cuh"
#include "cuda/core/copy.cuh"
#include "cuda/policy/image.cuh"
#include "cuda/policy/rows.cuh"

namespace kvsift {
namespace {

constexpr int kItemsOfWarp = 4, kTokensOfPair = 2;  // a warp's items are its own from logits to output
constexpr std::uint32_t kRowFloats = kChunk + 16;  // two neighbouring rows of logits lie in different banks
constexpr std::uint32_t kStagesOfPass = kChunk / kCausalStage;  // a chunk is a pass over keys and one over values

static_assert(kCausalThreads / kWarpThreads * kItemsOfWarp == kCausalItems, "a warp for each four items");
static_assert(kWarpThreads / 2 * kTokensOfPair == kCausalStage, "a warp has the whole stage at once");

// What is known of the items, one after another: tokens that they see (of none behind the last), what came before the chunk,
// the chunk's own.
struct Items {
  std::uint32_t seen[kCausalItems];
  float max[kCausalItems], sum[kCausalItems], chunk_max[kCausalItems], chunk_sum[kCausalItems];
  float scales[2][kCausalStage];  // of a stage's rows
};

template <class T>
struct Tile {
  using Type = typename Staged<T>::Type;
  static constexpr bool kAny = std::is_same<T, AnyType>::value;

  const CausalArgs &args;
  const DeviceHead &head;
  Items &items;
  float *queries;      // [dim16 / 8][kCausalItems][8]
  float *logits;       // [kCausalItems][kRowFloats]
  Type *rows;          // [2][kCausalStage][stride]
  std::uint32_t first, end;  // items

  __device__ const Settings &s() const { return head.settings(); }
  __device__ std::uint32_t lane() const { return threadIdx.x % kWarpThreads; }
  // Of the warp's items the q-th, counted from `first`.
  __device__ std::uint32_t own(int q) const { return threadIdx.x / kWarpThreads * kItemsOfWarp + q; }
  __device__ std::uint32_t columns() const { return kAny ? s().dim16 : s().c.head_dim; }
  // Rows of 2 or 4 bytes an element that neighbouring pairs read lie in different banks.
  __device__ std::uint32_t stride() const { return s().dim16 + (sizeof(Type) == 1 ? 16 : 8); }
  __device__ Type *stage(std::uint32_t n) const { return rows + n % 2 * kCausalStage * stride(); }
  __device__ float *own_logits(int q) const { return logits + own(q) * kRowFloats; }
  __device__ float *out(std::uint32_t i) const {
    const std::uint32_t item = first + i;
    const std::uint64_t row = item / s().group, query_head = head.kv_head * s().group + item % s().group;
    return args.out + (row * s().c.query_heads + query_head) * s().c.head_dim;
  }
};

template <class T>
__device__ inline void begin(const Tile<T> &tile) {
  const Settings &s = tile.s();
  if (threadIdx.x < kCausalItems) {
    const std::uint32_t item = tile.first + threadIdx.x;
    const std::uint32_t later = tile.args.rows - 1 - (item < tile.end ? item / s.group : 0);
    tile.items.seen[threadIdx.x] = item < tile.end ? tokens_of(tile.args.call) - later : 0;
    tile.items.max[threadIdx.x] = -infinity();
    tile.items.sum[threadIdx.x] = 0.0f;
  }
  for (std::uint32_t i = threadIdx.x; i < kCausalItems * s.dim16; i += kCausalThreads) {
    const std::uint32_t item = tile.first + i / 8 % kCausalItems, c = i / (8 * kCausalItems) * 8 + i % 8;
    float x = 0.0f;
    if (item < tile.end && c < s.c.head_dim) {
      const DeviceRow row = row_of(tile.args.queries, 0, item / s.group, tile.head.kv_head * s.group + item % s.group);
      x = element_at(row.data, tile.args.queries.type, c) * row.scale;
    }
    tile.queries[i] = x;
  }
  __syncthreads();
}

// Where stage n of the walk begins: keys of a chunk, then its values.
__device__ inline std::uint32_t token_of_stage(std::uint32_t n) {
  return n / (2 * kStagesOfPass) * kChunk + n % kStagesOfPass * kCausalStage;
}
__device__ inline std::uint32_t count_of_stage(std::uint32_t n, std::uint32_t limit) {
  const std::uint32_t begin = token_of_stage(n);
  return begin >= limit ? 0 : limit - begin < kCausalStage ? limit - begin : kCausalStage;
}

// Rows of stage n on their way into their half of the room.
template <class T>
__device__ inline void fetch(const Tile<T> &tile, std::uint32_t n, std::uint32_t limit) {
  const CausalArgs &args = tile.args;
  const kvsift_view &view = n / kStagesOfPass % 2 == 0 ? args.keys : args.values;
  const std::uint32_t begin = token_of_stage(n), count = count_of_stage(n, limit), head = tile.head.kv_head;
  const PageTable table{args.table == nullptr ? nullptr : args.table + std::uint64_t{args.table_stride} * head, args.page_shift};
  auto *to = tile.stage(n);
  if constexpr (Tile<T>::kAny) {
    for (std::uint32_t i = threadIdx.x; i < count * tile.s().dim16; i += kCausalThreads) {
      const std::uint32_t r = i / tile.s().dim16, c = i % tile.s().dim16;
      const DeviceRow row = row_of_token(view, table, begin + r, head);
      to[r * tile.stride() + c] = c < tile.s().c.head_dim ? element_at(row.data, view.type, c) : 0.0f;
    }
  } else {
    const std::uint32_t pieces = tile.s().c.head_dim * sizeof(T) / 16;
    for (std::uint32_t i = threadIdx.x; i < count * pieces; i += kCausalThreads) {
      const std::uint32_t r = i / pieces, piece = i % pieces;
      const DeviceRow row = row_of_token(view, table, begin + r, head);
      copy_async(reinterpret_cast<char *>(to + r * tile.stride()) + piece * 16, row.data + piece * 16);
    }
  }
  end_copies();
  if (threadIdx.x >= count) return;
  const std::uint32_t token = begin + threadIdx.x;
  if (table.entries != nullptr && table.entries[token >> table.shift] < 0) report(args.call, kFaultTable, head);
  if (view.scales != nullptr) tile.items.scales[n % 2][threadIdx.x] = row_of_token(view, table, token, head).scale;
}

// Stage n's rows have come; what is done with them; the next but one is on its way.
template <class T, class Use>
__device__ inline void with_stage(const Tile<T> &tile, std::uint32_t n, std::uint32_t limit, Use use) {
  wait_copies<1>();
  __syncthreads();
  const std::uint32_t count = count_of_stage(n, limit);
  if (count > 0) use(tile.stage(n), count);
  __syncthreads();
  fetch(tile, n + 2, limit);
}

}  // namespace
}  // namespace kvsift

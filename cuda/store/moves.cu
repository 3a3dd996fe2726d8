// Blocks between the tiers of a store.
#include "cuda/store/moves.h"

#include "cuda/core/device.cuh"

namespace kvsift {
namespace {

constexpr std::uint32_t kAtOnce = 4;  // loads of a thread under way, over the bus

__device__ inline void tell(std::int32_t *table, const Move &move) {
  if (threadIdx.x != 0) return;
  if (move.evicted != kNoSlot) table[move.evicted] = -1;
  table[move.record] = static_cast<std::int32_t>(move.slot);
}

__device__ inline void copy_words(uint4 *to, const uint4 *from, std::uint32_t words) {
  for (std::uint32_t first = threadIdx.x; first < words; first += kAtOnce * blockDim.x) {
    uint4 held[kAtOnce];
#pragma unroll
    for (std::uint32_t i = 0; i < kAtOnce; ++i) {
      const std::uint32_t at = first + i * blockDim.x;
      if (at < words) held[i] = from[at];
    }
#pragma unroll
    for (std::uint32_t i = 0; i < kAtOnce; ++i) {
      const std::uint32_t at = first + i * blockDim.x;
      if (at < words) to[at] = held[i];
    }
  }
}

template <class T>
__device__ inline void copy_row(char *to, const char *from, std::uint64_t bytes) {
  for (std::uint64_t i = threadIdx.x; i < bytes / sizeof(T); i += blockDim.x) {
    reinterpret_cast<T *>(to)[i] = reinterpret_cast<const T *>(from)[i];
  }
}

__device__ inline void copy_rows(char *to, const kvsift_view &view, std::uint32_t head, std::uint32_t row, std::uint32_t rows,
                                 std::uint64_t row_bytes) {
  const char *from = static_cast<const char *>(view.data) + row * view.token_stride + head * view.head_stride;
  const std::uint64_t places = reinterpret_cast<std::uint64_t>(from) | view.token_stride | row_bytes;
  for (std::uint32_t r = 0; r < rows; ++r, to += row_bytes, from += view.token_stride) {
    if (places % sizeof(uint4) == 0) copy_row<uint4>(to, from, row_bytes);
    else copy_row<std::uint16_t>(to, from, row_bytes);
  }
}

}  // namespace

KVSIFT_KERNEL(store_gather, StoreGatherArgs, kMoveThreads) {
  for (std::uint32_t i = blockIdx.x; i < args.count; i += gridDim.x) {
    const Move &move = args.moves[i];
    tell(args.table, move);
    if (args.words == 0) continue;
    char *to = args.slots + move.slot * args.slot_bytes;
    const char *from = args.records + move.record * args.slot_bytes;
    copy_words(reinterpret_cast<uint4 *>(to), reinterpret_cast<const uint4 *>(from), args.words);
  }
}

KVSIFT_KERNEL(store_append, StoreAppendArgs, kMoveThreads) {
  for (std::uint32_t i = blockIdx.x; i < args.count; i += gridDim.x) {
    const Move &move = args.moves[i];
    const std::uint32_t head = move.record / args.blocks, start = move.record % args.blocks << args.block_shift;
    const std::uint32_t stop = start + (1u << args.block_shift);
    const std::uint32_t begin = start < args.begin ? args.begin : start, end = stop < args.end ? stop : args.end;
    const std::uint32_t row = args.row + (begin - args.begin);
    char *keys = args.slots + move.slot * args.slot_bytes + (begin - start) * args.row_bytes;
    tell(args.table, move);
    copy_rows(keys, args.keys, head, row, end - begin, args.row_bytes);
    copy_rows(keys + args.keys_bytes, args.values, head, row, end - begin, args.row_bytes);
  }
}

}  // namespace kvsift

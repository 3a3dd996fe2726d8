// Blocks between the tiers of a store.
#include "cuda/store/moves.h"

#include "cuda/core/device.cuh"

namespace kvsift {
namespace {

constexpr std::uint32_t kAtOnce = 4;  // loads of a thread under way, over the bus

__device__ inline void tell(std::int32_t *table, const Move &move, bool quiet) {
  if (threadIdx.x != 0) return;
  if (move.evicted != kNoSlot) table[move.evicted] = -1;
  if (!quiet) table[move.record] = static_cast<std::int32_t>(move.slot);
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

}  // namespace

KVSIFT_KERNEL(store_gather, StoreGatherArgs, kMoveThreads) {
  for (std::uint32_t i = blockIdx.x; i < args.count; i += gridDim.x) {
    const Move &move = args.moves[i];
    tell(args.table, move, args.quiet != 0);
    if (args.words == 0) continue;
    char *to = args.slots + move.slot * args.slot_bytes;
    const char *from = args.records + move.record * args.slot_bytes;
    copy_words(reinterpret_cast<uint4 *>(to), reinterpret_cast<const uint4 *>(from), args.words);
  }
}

}  // namespace kvsift

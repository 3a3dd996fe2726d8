// Checksums of blocks. A word is mixed with its place, so that every change of one word changes the sum, and the sum does not
// depend on the order in which threads add.
#include "cuda/core/device.cuh"
#include "cuda/store/moves.h"

namespace kvsift {
namespace {

// Different words at one place give different values, whose bits all depend on all of theirs.
__device__ inline unsigned long long mixed(std::uint64_t word, std::uint32_t place) {
  std::uint64_t x = word + (place + 1ull) * 0x9e3779b97f4a7c15ull;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
  return x ^ (x >> 31);
}

__device__ inline std::uint64_t sum_of(const char *slot, std::uint32_t words) {
  __shared__ unsigned long long total;
  if (threadIdx.x == 0) total = 0;
  __syncthreads();
  unsigned long long own = 0;
  for (std::uint32_t i = threadIdx.x; i < words; i += blockDim.x) own += mixed(reinterpret_cast<const std::uint64_t *>(slot)[i], i);
  atomicAdd(&total, own);
  __syncthreads();
  const std::uint64_t sum = total;
  __syncthreads();
  return sum;
}

// A block that is not what was written: the table no longer names it, and its slot holds NaN in any type, which no
// attention can take for a number.
__device__ inline void refuse(const StoreSumArgs &args, const Move &move, std::uint32_t words) {
  auto *slot = reinterpret_cast<std::uint64_t *>(args.slots + move.slot * args.slot_bytes);
  for (std::uint32_t i = threadIdx.x; i < words; i += blockDim.x) slot[i] = ~0ull;
  if (threadIdx.x != 0) return;
  args.table[move.record] = -1;
  atomicAdd(&args.fault->corrupt, 1u);
  const auto none = static_cast<std::uint32_t>(kStoreFaultNone), corrupt = static_cast<std::uint32_t>(kStoreFaultCorrupt);
  if (atomicCAS(&args.fault->what, none, corrupt) != none) return;
  args.fault->layer = args.layer;
  args.fault->record = move.record;
}

}  // namespace

KVSIFT_KERNEL(store_sum, StoreSumArgs, kMoveThreads) {
  const auto words = static_cast<std::uint32_t>(args.slot_bytes / sizeof(std::uint64_t));
  for (std::uint32_t i = blockIdx.x; i < args.count; i += gridDim.x) {
    const Move &move = args.moves[i];
    const std::uint64_t sum = sum_of(args.slots + move.slot * args.slot_bytes, words);
    if (args.checks != 0) {
      if (sum != args.sums[move.record]) refuse(args, move, words);
    } else if (threadIdx.x == 0) {
      args.sums[move.record] = sum;
    }
  }
}

}  // namespace kvsift

#include "cuda/policy/reduce.h"

#include "cuda/core/last.cuh"
#include "cuda/policy/group.cuh"
#include "cuda/policy/step.cuh"

namespace kvsift {
namespace {

constexpr std::uint32_t kTileColumns = 256;  // of each of 16 rows, on their way to a sum; fewer rows have more

// A KV head's rows, and the columns of them that a block takes.
struct ReduceWork {
  const ChooseArgs &args;
  DeviceHead head;
  std::uint32_t columns;  // 0: the step ranks nothing

  __device__ explicit ReduceWork(const ChooseArgs &a) : args(a), head(head_of(a.call)), columns(0) {
    const std::uint32_t tokens = tokens_of(a.call);
    if (tokens > settings().c.max_tokens || step_of(a.call, tokens, a.learns != 0).everything) return;
    columns = a.leading == nullptr ? blocks_of(tokens, settings().c.block_tokens) : a.leading[blockIdx.y];
  }
  __device__ const Settings &settings() const { return args.call.image.s; }
  __device__ GroupRows rows() const {
    const Scratch scratch = head.scratch();
    return GroupRows{scratch.scores, static_cast<std::uint32_t>(scratch.stride), settings().group, columns};
  }
  __device__ GroupRows own() const {
    GroupRows part = rows();
    const std::uint32_t each = blocks_of(blocks_of(columns, 4), gridDim.x) * 4, first = blockIdx.x * each;
    part.scores += first < columns ? first : 0;
    part.count = first >= columns ? 0 : columns - first < each ? columns - first : each;
    return part;
  }
  __device__ float *maxima(std::uint32_t part) const {
    const Image &image = head.image;
    return in_image<float>(image, image.room.reduced) + head.kv_head * reduce_room(image.s) + part * image.s.group;
  }
  __device__ float *inverse() const { return maxima(kReduceParts); }
};

// The largest of all blocks' maxima, a warp for each row.
__device__ inline void join_maxima(const ReduceWork &work, float *max) {
  const std::uint32_t warp = threadIdx.x / kWarpThreads, lane = threadIdx.x % kWarpThreads;
  for (std::uint32_t g = warp; g < work.settings().group; g += kReduceThreads / kWarpThreads) {
    float x = -infinity();
    for (std::uint32_t part = lane; part < gridDim.x; part += kWarpThreads) x = larger(work.maxima(part)[g], x);
    x = larger_of_warp(x);
    if (lane == 0) max[g] = x;
  }
  __syncthreads();
}

struct SumTile {
  alignas(16) float half[2][16 * kTileColumns];  // one half is on its way while the other is added up
};

// Columns [first, ...) of rows [row, ...) on their way near.
__device__ inline void fetch_tile(const GroupRows &rows, std::uint32_t row, std::uint32_t first, std::uint32_t columns,
                                  float *tile) {
  const std::uint32_t count = rows.group - row < 16 ? rows.group - row : 16;
  for (std::uint32_t i = threadIdx.x; i < count * (columns / 4); i += kReduceThreads) {
    const std::uint32_t g = i / (columns / 4), c = i % (columns / 4) * 4;
    if (first + c < rows.count) copy_async(tile + g * columns + c, rows.row(row + g) + first + c);
  }
  end_copies();
}

// Sixteen rows from `row` on: a thread for each lane of each row's sum, which adds in order.
__device__ inline void sum_rows(const GroupRows &rows, std::uint32_t row, SumTile *tile, float *inverse) {
  __shared__ float lanes[16][16];
  const std::uint32_t g = threadIdx.x / 16, lane = threadIdx.x % 16;
  float sum = 0.0f;
  std::uint32_t half = 0;
  const std::uint32_t count = rows.group - row, columns = kTileColumns * (count <= 4 ? 4 : count <= 8 ? 2 : 1);
  fetch_tile(rows, row, 0, columns, tile->half[0]);
  for (std::uint32_t first = 0; first < rows.count; first += columns, half ^= 1) {
    fetch_tile(rows, row, first + columns, columns, tile->half[half ^ 1]);
    wait_copies<1>();
    __syncthreads();
    const std::uint32_t left = rows.count - first, here = left < columns ? left : columns;
    if (row + g < rows.group) {
#pragma unroll 16
      for (std::uint32_t c = lane; c < here; c += 16) sum = sum + tile->half[half][g * columns + c];
    }
    __syncthreads();
  }
  wait_copies<0>();
  lanes[g][lane] = sum;
  __syncthreads();
  if (lane == 0 && row + g < rows.group) inverse[row + g] = 1.0f / tree16(lanes[g]);
  __syncthreads();
}

template <bool kSoften>
__device__ inline void join_own(const ReduceWork &work) {
  const GroupRows own = work.own();
  if (work.settings().c.grouping == KVSIFT_GROUP_MEAN) {
    join_rows<false, kSoften, true>(own, work.inverse(), own.scores, nullptr);
  } else {
    join_rows<false, kSoften, false>(own, work.inverse(), own.scores, nullptr);
  }
}

}  // namespace
}  // namespace kvsift

using namespace kvsift;

// Blocks: [parts of the columns][KV heads], for all three.
KVSIFT_KERNEL(reduce_maxima, ChooseArgs, kReduceThreads) {
  __shared__ float max[KVSIFT_MAX_GROUP];
  const ReduceWork work(args);
  if (work.columns == 0) return;
  find_maxima<false>(work.own(), max);
  if (threadIdx.x < work.settings().group) work.maxima(blockIdx.x)[threadIdx.x] = max[threadIdx.x];
}

// exp(x - max) in place; the last block adds the rows up.
KVSIFT_KERNEL(reduce_soften, ChooseArgs, kReduceThreads) {
  __shared__ float max[KVSIFT_MAX_GROUP];
  __shared__ SumTile tile;
  const ReduceWork work(args);
  if (work.columns == 0) return;
  join_maxima(work, max);
  exponentiate<false>(work.own(), max);
  auto *arrivals = in_image<std::uint32_t>(args.call.image, args.call.image.room.tickets) + work.head.kv_head;
  if (!is_last_block(arrivals, gridDim.x)) return;
  for (std::uint32_t row = 0; row < work.settings().group; row += 16) sum_rows(work.rows(), row, &tile, work.inverse());
}

KVSIFT_KERNEL(reduce_join, ChooseArgs, kReduceThreads) {
  const ReduceWork work(args);
  if (work.columns == 0) return;
  args.kind == ScoreKind::kLog ? join_own<true>(work) : join_own<false>(work);
}

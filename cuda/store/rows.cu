// New rows into slots: as they are, or as int8 with a scale (store/rows.cpp, to the same bits).
#include "cuda/core/device.cuh"
#include "cuda/store/moves.h"

namespace kvsift {
namespace {

constexpr float kLeastScale = 1.1754944e-38f;  // of a row of subnormals, which cannot be divided by, less

// Some rows of one KV head in one block, of the keys or of the values.
struct Rows {
  const StoreAppendArgs &args;
  const kvsift_view &view;
  std::uint32_t record, head, first, count;
  char *to;
  float *scales;

  __device__ const char *from(std::uint32_t r) const {
    return static_cast<const char *>(view.data) + (first + r) * view.token_stride + head * view.head_stride;
  }
  __device__ float scale(std::uint32_t r) const {
    return *reinterpret_cast<const float *>(reinterpret_cast<const char *>(view.scales) + (first + r) * view.scale_token_stride +
                                            head * view.scale_head_stride);
  }
};

__device__ inline bool is_finite(float x) { return x - x == 0.0f; }

// A scale that is no number makes what attends to its row none either, so that it cannot be missed.
__device__ inline float told_scale(const Rows &rows, float scale, bool finite) {
  if (finite) return scale;
  StoreFault *fault = rows.args.fault;
  if (atomicCAS(&fault->what, static_cast<std::uint32_t>(kStoreFaultNone), static_cast<std::uint32_t>(kStoreFaultNotFinite)) == 0) {
    fault->layer = rows.args.layer;
    fault->record = rows.record;
  }
  return __uint_as_float(0x7fc00000u);
}

__device__ inline std::int8_t level_of(float x, float scale) {
  const float level = x / scale;
  const auto rounded = static_cast<std::int32_t>(level + (level < 0 ? -0.5f : 0.5f));
  return static_cast<std::int8_t>(rounded > 127 ? 127 : rounded < -127 ? -127 : rounded);
}

// One row, by a warp. A maximum is the same in any order.
__device__ inline void quantize(const Rows &rows, std::uint32_t r) {
  const std::uint32_t dim = rows.args.dim, lane = threadIdx.x % kWarpThreads;
  const char *from = rows.from(r);
  auto *to = reinterpret_cast<std::int8_t *>(rows.to + r * rows.args.row_bytes);
  float largest = 0;
  bool finite = true;
  for (std::uint32_t i = lane; i < dim; i += kWarpThreads) {
    const float x = element_at(from, rows.view.type, i), magnitude = fabsf(x);
    finite = finite && is_finite(x);
    largest = magnitude > largest ? magnitude : largest;
  }
#pragma unroll
  for (unsigned step = 16; step > 0; step /= 2) {
    const float other = __shfl_xor_sync(kAllLanes, largest, step);
    largest = other > largest ? other : largest;
  }
  finite = __all_sync(kAllLanes, finite);
  const float scale = largest / 127.0f;
  const bool flat = !finite || !(scale >= kLeastScale);
  for (std::uint32_t i = lane; i < dim; i += kWarpThreads) {
    to[i] = flat ? std::int8_t{0} : level_of(element_at(from, rows.view.type, i), scale);
  }
  if (lane == 0) rows.scales[r] = told_scale(rows, flat ? 0.0f : scale, finite);
}

template <class T>
__device__ inline void copy_row(char *to, const char *from, std::uint64_t bytes) {
  for (std::uint64_t i = threadIdx.x; i < bytes / sizeof(T); i += blockDim.x) {
    reinterpret_cast<T *>(to)[i] = reinterpret_cast<const T *>(from)[i];
  }
}

__device__ inline void copy_rows(const Rows &rows) {
  const std::uint64_t bytes = rows.args.row_bytes;
  const std::uint64_t places = reinterpret_cast<std::uint64_t>(rows.from(0)) | rows.view.token_stride | bytes;
  for (std::uint32_t r = 0; r < rows.count; ++r) {
    char *to = rows.to + r * bytes;
    if (places % sizeof(uint4) == 0) copy_row<uint4>(to, rows.from(r), bytes);
    else if (places % sizeof(std::uint16_t) == 0) copy_row<std::uint16_t>(to, rows.from(r), bytes);
    else copy_row<std::uint8_t>(to, rows.from(r), bytes);
  }
  if (rows.args.storage != KVSIFT_I8) return;
  for (std::uint32_t r = threadIdx.x; r < rows.count; r += blockDim.x) {
    rows.scales[r] = told_scale(rows, rows.scale(r), is_finite(rows.scale(r)));
  }
}

__device__ inline void put(const Rows &rows) {
  if (rows.view.type == rows.args.storage) return copy_rows(rows);
  for (std::uint32_t r = threadIdx.x / kWarpThreads; r < rows.count; r += blockDim.x / kWarpThreads) quantize(rows, r);
}

}  // namespace

KVSIFT_KERNEL(store_append, StoreAppendArgs, kMoveThreads) {
  for (std::uint32_t i = blockIdx.x; i < args.count; i += gridDim.x) {
    const Move &move = args.moves[i];
    const std::uint32_t head = move.record / args.blocks, start = move.record % args.blocks << args.block_shift;
    const std::uint32_t size = 1u << args.block_shift, stop = start + size;
    const std::uint32_t begin = start < args.begin ? args.begin : start, end = stop < args.end ? stop : args.end;
    const std::uint32_t row = args.row + (begin - args.begin), offset = begin - start;
    char *slot = args.slots + move.slot * args.slot_bytes, *keys = slot + offset * args.row_bytes;
    auto *scales = reinterpret_cast<float *>(slot + args.scales_at) + offset;
    if (threadIdx.x == 0) {
      if (move.evicted != kNoSlot) args.table[move.evicted] = -1;
      args.table[move.record] = static_cast<std::int32_t>(move.slot);
    }
    put(Rows{args, args.keys, move.record, head, row, end - begin, keys, scales});
    put(Rows{args, args.values, move.record, head, row, end - begin, keys + args.keys_bytes, scales + size});
  }
}

}  // namespace kvsift

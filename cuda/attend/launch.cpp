#include "cuda/attend/launch.h"

#include "core/view.h"
#include "cuda/methods/page_scores.h"

namespace kvsift {
namespace {

constexpr std::uint32_t kStaticShared = 4096;  // of the kernels, at most

constexpr std::uint32_t kFewestDenseWarps = 4;

// Of the fast kernels by element type, then the one for all else.
constexpr KernelId kKernelsByType[] = {kKernel_attend_f32, kKernel_attend_f16, kKernel_attend_bf16, kKernel_attend_i8};

std::uint32_t stage_bytes(const Settings &s, std::uint32_t element) {
  const std::uint32_t row = s.dim16 * element;
  return 2 * stage_rows(row) * row;
}

// Query heads in fours where warps can take chunks of rows of such elements alone.
std::uint32_t dense_tiles(const Settings &s, std::uint32_t element) {
  return element <= 2 && s.c.head_dim <= kDenseDim && s.group <= 8 ? heads_of_rows(s.group) / 4 : 0;
}

// As many of a block's warps as there is shared memory for, beside `taken` bytes.
std::uint32_t warps_of(const CudaDevice &device, std::uint32_t taken, std::uint32_t each) {
  const std::uint32_t all = kAttendThreads / 32, room = taken + kStaticShared;
  const std::uint32_t fit = device.shared_bytes > room ? (device.shared_bytes - room) / each : 0;
  return fit < all ? fit : all;
}

std::uint32_t dense_warps(const CudaDevice &device, const Settings &s, std::uint32_t element) {
  const DenseRoom room = dense_room(s, dense_tiles(s, element), element);
  return warps_of(device, room.queries, room.warp);
}

// By element type, for at most four query heads, then eight.
constexpr KernelId kTensorKernels[2][2] = {{kKernel_attend_tensor_f16, kKernel_attend_tensor_bf16},
                                           {kKernel_attend_tensor_wide_f16, kKernel_attend_tensor_wide_bf16}};

bool fits_tensor_cores(const Settings &s) {
  return s.c.tensor_attention != 0 && s.c.head_dim % 16 == 0 && s.c.head_dim <= kDenseDim && s.group <= 8;
}

std::uint32_t tensor_warps(const CudaDevice &device, const Settings &s) {
  return warps_of(device, tensor_room(s).ring, tensor_room(s).warp);
}

std::uint32_t chunk_bytes(const Settings &s, std::uint32_t element, bool near_keys) {
  std::uint32_t stage = stage_bytes(s, element);
  // Rows of page means come through the same stage.
  for (std::uint32_t mean = 1; s.value_moments && mean <= 2; ++mean) {
    if (stage_bytes(s, mean) > stage) stage = stage_bytes(s, mean);
  }
  return chunk_room(s, element, near_keys).stage + stage;
}

// Some devices have no shared memory for a chunk's keys beside the rest.
bool has_near_keys(const CudaDevice &device, const Settings &s, std::uint32_t element) {
  return chunk_bytes(s, element, true) + kStaticShared <= device.shared_bytes;
}

std::uint32_t shared_bytes(const CudaDevice &device, const Settings &s, std::uint32_t element) {
  const std::uint32_t chunk = chunk_bytes(s, element, has_near_keys(device, s, element)), tiles = dense_tiles(s, element);
  const DenseRoom room = dense_room(s, tiles, element);
  const std::uint32_t dense = tiles == 0 ? 0 : room.queries + dense_warps(device, s, element) * room.warp;
  return chunk > dense ? chunk : dense;
}

std::uint32_t tensor_shared_bytes(const CudaDevice &device, const Settings &s) {
  const TensorRoom room = tensor_room(s);
  const std::uint32_t kept = room.ring + tensor_warps(device, s) * room.warp;
  if (!s.value_moments) return kept;
  const std::uint32_t pages = chunk_room(s, 2, false).stage + stage_bytes(s, element_bytes(s.c.moments_type));
  return kept > pages ? kept : pages;
}

bool is_aligned(const kvsift_view &view) {
  const std::uint64_t places =
      reinterpret_cast<std::uintptr_t>(view.data) | view.token_stride | view.head_stride | view.page_stride;
  return places % 16 == 0;
}

bool is_fast(const AttendArgs &args) {
  const Settings &s = args.call.image.s;
  const kvsift_view &keys = args.cache.keys, &values = args.cache.values;
  return keys.type == values.type && is_aligned(keys) && is_aligned(values) &&
         s.c.head_dim * element_bytes(keys.type) % 16 == 0 && s.c.head_dim % 8 == 0 &&
         s.dim16 * s.group <= kMostNarrow;
}

// Whether the pass may be near rather than exact, and is one that tensor cores can do: what an observation holds is exact.
bool is_for_tensor_cores(const Launcher &to, const AttendArgs &args) {
  const Settings &s = args.call.image.s;
  const bool plain = args.block_max == nullptr && args.block_mass == nullptr && args.row_only == 0 && args.tail_only == 0;
  return fits_tensor_cores(s) && plain && args.tail != KVSIFT_TAIL_BALANCE && is_fast(args) &&
         element_bytes(args.cache.keys.type) == 2 && tensor_warps(to.device, s) > 0;
}

kvsift_status launch_tensor(const Launcher &to, const AttendArgs &asked, std::uint32_t heads) {
  const Settings &s = asked.call.image.s;
  AttendArgs args = asked;
  args.dense_warps = tensor_warps(to.device, s);
  const std::uint32_t each = to.device.multiprocessors / heads, most = tensor_blocks(s);
  const std::uint32_t blocks = each < 1 ? 1 : each < most ? each : most;
  const LaunchShape shape{blocks, heads, 1, kAttendThreads, tensor_shared_bytes(to.device, s)};
  const KernelId kernel = kTensorKernels[s.group > 4][args.cache.keys.type == KVSIFT_BF16];
  return launch(to.device, kernel, shape, to.stream, args, to.error);
}

kvsift_status launch_pass(const Launcher &to, const AttendArgs &asked, std::uint32_t heads) {
  const Settings &s = asked.call.image.s;
  const bool fast = is_fast(asked);
  AttendArgs args = asked;
  const std::uint32_t element = fast ? element_bytes(args.cache.keys.type) : 4;
  args.near_keys = has_near_keys(to.device, s, element);
  args.dense_tiles = fast ? dense_tiles(s, element) : 0;
  args.dense_warps = dense_warps(to.device, s, element);
  if (args.dense_warps < kFewestDenseWarps) args.dense_tiles = 0;
  const KernelId kernel = fast ? kKernelsByType[args.cache.keys.type] : kKernel_attend_any;
  const std::uint64_t slots = args.call.image.room.slots * s.lists;
  // No more than are on the machine at once; what is left over they take in turns.
  const std::uint32_t each = to.device.multiprocessors / heads, most = each > 0 ? each : 1;
  const LaunchShape chunks{slots < most ? static_cast<std::uint32_t>(slots) : most, heads, 1, kAttendThreads,
                           shared_bytes(to.device, s, element)};
  if (kvsift_status status = launch(to.device, kernel, chunks, to.stream, args, to.error)) return status;
  const LaunchShape merge{s.group * blocks_of(s.dim16, kMergeColumns), heads, 1, kMergeThreads, 0};
  return launch(to.device, kKernel_attend_merge, merge, to.stream, args, to.error);
}

}  // namespace

kvsift_status allow_attend_shared(const CudaDevice &device, const Settings &s, kvsift_error *error) {
  for (std::uint32_t type = 0; type < 4; ++type) {
    if (kvsift_status status = allow_shared(device, kKernelsByType[type], shared_bytes(device, s, element_bytes(type)), error)) {
      return status;
    }
  }
  if (kvsift_status status = allow_shared(device, kKernel_attend_any, shared_bytes(device, s, 4), error)) return status;
  if (!fits_tensor_cores(s)) return KVSIFT_OK;
  for (const KernelId kernel : kTensorKernels[s.group > 4]) {
    if (kvsift_status status = allow_shared(device, kernel, tensor_shared_bytes(device, s), error)) return status;
  }
  return KVSIFT_OK;
}

CacheArgs cache_args(const kvsift_cache &cache) {
  CacheArgs args{cache.keys, cache.values, cache.block_table, cache.block_table_stride, 0};
  while (cache.page_tokens >> args.page_shift > 1) ++args.page_shift;
  return args;
}

kvsift_status launch_attend(const Launcher &to, const AttendArgs &args, std::uint32_t heads, bool learns) {
  if (args.tail == KVSIFT_TAIL_MOMENTS && args.logits_of_selection == 0) {
    if (kvsift_status status = leave_tail_logits(to, args.call, heads, args.query)) return status;
  }
  if (is_for_tensor_cores(to, args)) return launch_tensor(to, args, heads);
  if (kvsift_status status = launch_pass(to, args, heads)) return status;
  if (!learns || (args.block_max == nullptr && args.block_mass == nullptr)) return KVSIFT_OK;
  AttendArgs row = args;
  row.row_only = 1;
  return launch_pass(to, row, heads);
}

}  // namespace kvsift

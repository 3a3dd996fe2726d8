#include "cuda/attend/causal.h"

#include "attend/chunk.h"
#include "core/view.h"

namespace kvsift {
namespace {

// By the element type of keys and values, then the one for all else.
constexpr KernelId kKernelsByType[] = {kKernel_causal_f32, kKernel_causal_f16, kKernel_causal_bf16, kKernel_causal_i8};

// Whether any row can be read 16 bytes at a time.
bool is_aligned(const kvsift_view &view) {
  const std::uint64_t places =
      reinterpret_cast<std::uintptr_t>(view.data) | view.token_stride | view.head_stride | view.page_stride;
  return places % 16 == 0;
}

bool is_fast(const CausalArgs &args) {
  const std::uint32_t dim = args.call.image.s.c.head_dim;
  const kvsift_view &keys = args.keys, &values = args.values;
  return keys.type == values.type && is_aligned(keys) && is_aligned(values) && dim % 8 == 0 &&
         dim * element_bytes(keys.type) % 16 == 0;
}

}  // namespace

kvsift_status causal_attend(const Launcher &to, const CausalArgs &args, std::uint32_t heads) {
  const Settings &s = args.call.image.s;
  const bool fast = is_fast(args);
  const KernelId kernel = fast ? kKernelsByType[args.keys.type] : kKernel_causal_any;
  const std::uint32_t element = fast ? element_bytes(args.keys.type) : sizeof(float);
  const std::uint32_t bytes = kCausalItems * (s.dim16 + kChunk + 16) * sizeof(float) + 2 * kCausalStage * (s.dim16 + 16) * element;
  if (kvsift_status status = allow_shared(to.device, kernel, bytes, to.error)) return status;
  const std::uint64_t items = std::uint64_t{args.rows} * s.group;
  const LaunchShape shape{static_cast<std::uint32_t>((items + kCausalItems - 1) / kCausalItems), heads, 1, kCausalThreads, bytes};
  return launch(to.device, kernel, shape, to.stream, args, to.error);
}

}  // namespace kvsift

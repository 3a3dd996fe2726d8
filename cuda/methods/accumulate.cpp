#include "cuda/methods/accumulate.h"

namespace kvsift {
namespace {

constexpr std::uint32_t kThreads = 256;

// The state is the methods' first field.
kvsift_status accumulate(const Launcher &to, std::uint32_t heads, const AccumulateArgs &args) {
  // No more than fill the machine: most of a capacity may be unused.
  const std::uint32_t all = blocks_of(args.call.image.s.max_blocks, kThreads);
  const std::uint32_t fill = blocks_of(to.device.multiprocessors * 8, heads);
  const LaunchShape shape{all < fill ? all : fill, heads, 1, kThreads, 0};
  return launch(to.device, kKernel_accumulate, shape, to.stream, args, to.error);
}

}  // namespace

kvsift_status observe_h2o(const Launcher &to, const Call &call, std::uint32_t heads, const DeviceRows &rows) {
  return accumulate(to, heads, AccumulateArgs{call, rows, 0, 1, 0, 1.0f, 1.0f});
}

kvsift_status observe_ema(const Launcher &to, const Call &call, std::uint32_t heads, const DeviceRows &rows) {
  const float decay = call.image.s.c.ema_decay;
  return accumulate(to, heads, AccumulateArgs{call, rows, 0, 0, 0, decay, 1 - decay});
}

kvsift_status observe_votes(const Launcher &to, const Call &call, std::uint32_t heads, const DeviceRows &rows) {
  return accumulate(to, heads, AccumulateArgs{call, rows, 0, 1, 1, 1.0f, 1.0f});
}

}  // namespace kvsift

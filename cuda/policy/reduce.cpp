#include "cuda/policy/reduce.h"

namespace kvsift {

kvsift_status launch_reduce(const Launcher &to, const ChooseArgs &args, std::uint32_t heads) {
  const std::uint32_t each = to.device.multiprocessors / heads, parts = each < 1 ? 1 : each < kReduceParts ? each : kReduceParts;
  const LaunchShape shape{parts, heads, 1, kReduceThreads, 0};
  if (args.kind == ScoreKind::kLog) {
    if (kvsift_status status = launch(to.device, kKernel_reduce_maxima, shape, to.stream, args, to.error)) return status;
    if (kvsift_status status = launch(to.device, kKernel_reduce_soften, shape, to.stream, args, to.error)) return status;
  }
  return launch(to.device, kKernel_reduce_join, shape, to.stream, args, to.error);
}

}  // namespace kvsift

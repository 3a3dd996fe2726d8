#include "cuda/methods/kept.h"

namespace kvsift {

kvsift_status select_kept(const Launcher &to, const Call &call, std::uint32_t heads) {
  const Settings &s = call.image.s;
  const LaunchShape shape{s.lists, heads, 1, kKeepThreads, 0};
  return launch(to.device, kKernel_select_kept, shape, to.stream, KeepArgs{call, s.c.method}, to.error);
}

}  // namespace kvsift

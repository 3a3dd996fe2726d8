// Methods that decide once what survives of the prompt, and keep all that is decoded: SnapKV, PyramidKV, uniform sampling.
#pragma once

#include "cuda/core/launcher.h"
#include "cuda/policy/image.h"

namespace kvsift {

constexpr std::uint32_t kKeepThreads = 1024;

// One block a list: blockIdx.x counts the lists of a KV head.
struct KeepArgs {
  Call call;
  std::uint32_t method;  // KVSIFT_METHOD_*
};

// Lists of the call's heads; at the first step after a prompt it is decided what they keep of it.
kvsift_status select_kept(const Launcher &to, const Call &call, std::uint32_t heads);

}  // namespace kvsift

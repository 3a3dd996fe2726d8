// Method balance: sinks and the newest tokens; the rest is its coreset's (policy/coreset.h).
#pragma once

#include "cuda/core/launcher.h"
#include "cuda/policy/image.h"

namespace kvsift {

struct BalanceListArgs {
  Call call;
  std::uint32_t closes;  // a coreset takes no more tokens once decoding has begun
};

kvsift_status select_balance(const Launcher &to, const Call &call, std::uint32_t heads);

}  // namespace kvsift

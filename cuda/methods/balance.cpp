#include "cuda/methods/balance.h"

#include "cuda/balance/compress.h"

namespace kvsift {

kvsift_status select_balance(const Launcher &to, const Call &call, std::uint32_t heads) {
  const LaunchShape shape{1, heads, 1, kGramThreads, 0};
  const BalanceListArgs args{call, call.image.s.coreset.closes};
  return launch(to.device, kKernel_select_balance, shape, to.stream, args, to.error);
}

}  // namespace kvsift

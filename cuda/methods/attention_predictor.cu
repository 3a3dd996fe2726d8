#include "cuda/methods/attention_predictor.h"

#include "cuda/predictor/history.cuh"

using namespace kvsift;

// A block for each KV head.
KVSIFT_KERNEL(predictor_reset, PredictorResetArgs, 32) {
  const Histories &all = args.histories;
  const History first(all, blockIdx.x * all.lists);
  if (threadIdx.x == 0) first.marks() = Marks{0, kNever, 0};
  for (std::uint32_t list = threadIdx.x; list < all.lists; list += blockDim.x) {
    History(all, blockIdx.x * all.lists + list).state() = args.state;
  }
}

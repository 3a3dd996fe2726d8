#include "cuda/methods/attention_predictor.h"

#include "cuda/policy/image.cuh"
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

// Blocks: [any number][KV heads * lists].
KVSIFT_KERNEL(predictor_score, PredictorScoreArgs, 256) {
  const Histories &all = args.histories;
  const std::uint32_t head = blockIdx.y / all.lists;
  const History h(all, blockIdx.y);
  const Marks marks = h.marks();
  const std::uint64_t end = h.state().end;
  const std::uint32_t known = h.columns_at(end), blocks = blocks_of(tokens_of(args.call), all.block_tokens);
  const std::uint32_t least = known < blocks ? known : blocks, columns = marks.scored == kNever ? 0 : least;
  if (blockIdx.x == 0 && threadIdx.x == 0 && h.list == 0) args.scored[head] = columns;
  float *out = args.scores + head * args.head_stride + h.list * args.list_stride;
  // Blocks opened since the prediction: what the newest row has there.
  const char *newest = end == 0 ? nullptr : h.row(end - 1);
  for (std::uint32_t j = blockIdx.x * blockDim.x + threadIdx.x; j < columns; j += gridDim.x * blockDim.x) {
    out[j] = j < marks.columns ? h.scores()[j] : share_at(newest, all.shape.form, j);
  }
}

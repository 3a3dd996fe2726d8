#include "cuda/predictor/history.h"

#include "cuda/predictor/history.cuh"

using namespace kvsift;

namespace {

__device__ std::uint32_t blocks_after(const HistoryAppendArgs &args, std::uint32_t tokens, std::uint32_t row) {
  const std::uint32_t length = tokens - (args.rows - 1 - row);
  return length / args.histories.block_tokens + (length % args.histories.block_tokens != 0);
}

// One column of all rows. A column that opens is zero in the rows before.
__device__ void append_column(const HistoryAppendArgs &args, const History &h, std::uint32_t tokens, std::uint32_t j) {
  const PredictorShape &shape = args.histories.shape;
  const std::uint64_t end = h.state().end;
  const std::uint32_t head = blockIdx.y / args.histories.lists;
  const float *peak = args.peak + head * args.head_stride + h.list * args.list_stride + j;
  bool open = j < h.state().columns;
  for (std::uint32_t r = 0; r < args.rows; ++r) {
    if (j >= blocks_after(args, tokens, r)) continue;
    for (std::uint32_t i = 0; !open && i < shape.slots; ++i) put_share(h.slot(i), shape.form, j, 0.0f);
    open = true;
    const float share = peak[r * args.row_stride];
    put_share(h.row(end + r), shape.form, j, share < shape.floor ? 0.0f : share);
  }
}

__device__ void count_rows(const HistoryAppendArgs &args, const History &h, std::uint32_t tokens) {
  PredictorState &state = h.state();
  const std::uint32_t columns = blocks_after(args, tokens, args.rows - 1);
  if (columns > state.columns) state.columns = columns;
  const std::uint64_t end = state.end + args.rows;
  if (h.list == 0) {
    for (std::uint32_t r = 0; r < args.rows; ++r) h.length(state.end + r) = tokens - (args.rows - 1 - r);
    if (args.prompt != 0) h.marks() = Marks{end, kNever, 0};
  }
  state.end = end;
  if (end - state.oldest > args.histories.shape.slots) state.oldest = end - args.histories.shape.slots;
}

}  // namespace

// Blocks: [columns][heads * lists]; the last one of a history counts the rows.
KVSIFT_KERNEL(history_append, HistoryAppendArgs, 256) {
  const History h(args.histories, blockIdx.y);
  const std::uint32_t tokens = args.tokens + (args.tokens_now == nullptr ? 0 : *args.tokens_now);
  if (args.prompt == 0 && tokens < args.learns_from) return;
  const std::uint32_t columns = blocks_after(args, tokens, args.rows - 1);
  for (std::uint32_t j = blockIdx.x * blockDim.x + threadIdx.x; j < columns; j += gridDim.x * blockDim.x) {
    append_column(args, h, tokens, j);
  }
  if (is_last_block(args.histories.arrivals + blockIdx.y, gridDim.x) && threadIdx.x == 0) count_rows(args, h, tokens);
}

// A block for each KV head, a thread for each list in turn.
KVSIFT_KERNEL(history_truncate, HistoryTruncateArgs, 256) {
  const Histories &all = args.histories;
  const History of_head(all, blockIdx.x * all.lists);
  std::uint64_t end = of_head.state().end;
  const std::uint64_t before = end, oldest = of_head.state().oldest;
  while (end > oldest && of_head.length(end - 1) > args.tokens) --end;
  __syncthreads();
  if (end == before) return;
  for (std::uint32_t list = threadIdx.x; list < all.lists; list += blockDim.x) {
    PredictorState &state = History(all, blockIdx.x * all.lists + list).state();
    state.end = end;
    state.columns = of_head.columns_at(end);
    if (state.s_bottom <= end) continue;
    state.s_bottom = end;
    const std::uint64_t most = end < kReach ? 0 : end - kReach;
    if (state.s_end > most) state.s_end = most;
  }
  Marks &marks = of_head.marks();
  if (threadIdx.x == 0 && marks.scored != kNever && marks.scored > end) marks.scored = kNever;
}

#include "cuda/methods/balance.h"

#include "cuda/balance/coreset_end.cuh"
#include "cuda/policy/lists.cuh"
#include "cuda/policy/step.cuh"

namespace kvsift {
namespace {

// The first of the newest tokens: the local ones, and behind them what came since the coreset was closed.
__device__ inline std::uint32_t exact_from(const DeviceHead &head, std::uint32_t tokens) {
  const DeviceCoreset coreset = coreset_of(head);
  const std::uint32_t local = head.settings().c.local_tokens > 0 ? head.settings().c.local_tokens : 1;
  const CoresetState &state = *coreset.state;
  const std::uint32_t end = state.closed != 0 ? coreset.shape.sinks + state.reduced + state.counts[0] : tokens;
  return end > local ? end - local : 0;
}

__device__ inline void count_step(const DeviceHead &head, std::uint32_t kept, std::uint32_t tokens, bool everything) {
  Unit *unit = head.unit();
  const std::uint64_t lists = everything ? 0 : head.settings().lists;
  unit->selected_for = tokens;
  unit->counters.tokens_read += everything ? tokens : kept;
  unit->counters.selections += lists;
  unit->counters.tokens_kept += lists * kept;
  unit->counters.tokens_total += lists * tokens;
}

__device__ inline void leave_marks(const DeviceHead &head, std::uint32_t tokens, bool everything) {
  *head.marks() = HeadMarks{head.layer, tokens, 0, 0};
  const auto kind = static_cast<std::uint32_t>(everything ? KVSIFT_TAIL_NONE : KVSIFT_TAIL_BALANCE);
  *head.step() = StepRecord{tokens, everything, 0, kind};
  if (blockIdx.y == 0) progress_of(head.image)->selected_for = tokens;
}

}  // namespace
}  // namespace kvsift

using namespace kvsift;

// A block for each KV head, whose lists are all alike.
KVSIFT_KERNEL_RESIDENT(select_balance, BalanceListArgs, kGramThreads, 1) {
  __shared__ CoresetShared shared;
  const DeviceHead head = head_of(args.call);
  const Image &image = args.call.image;
  const std::uint32_t tokens = tokens_of(args.call), sinks = image.s.c.sink_tokens;
  const bool dense = args.call.layer < image.s.c.dense_layers;
  if (tokens > image.s.c.max_tokens) {
    if (threadIdx.x == 0) report(args.call, kFaultCapacity, head.kv_head);
    return;
  }
  if (!dense && args.closes != 0 && coreset_of(head).state->closed == 0) {
    CoresetWork work(args.call, head, &shared);
    work.close();
    work.leave();
  }
  const bool everything = step_of(args.call, tokens, false).everything;
  std::uint32_t kept = 0;
  for (std::uint32_t l = 0; l < image.s.lists; ++l) {
    const std::uint32_t index = head.kv_head * image.s.lists + l;
    const DeviceList list = list_of(image, index);
    if (threadIdx.x == 0) {
      *list.block_count = 0;
      if (!dense) in_image<std::uint32_t>(image, image.missed_counts)[index] = 0;
    }
    if (everything) {
      write_everything(list, tokens);
      continue;
    }
    const Parts parts{nullptr, 0, image.s.c.block_tokens, sinks < tokens ? sinks : tokens, exact_from(head, tokens), tokens};
    kept = write_ranges(list, parts);
    write_blocks(list, parts);
    if (threadIdx.x == 0) in_image<std::uint32_t>(image, image.room.kept_counts)[index] = kept;
  }
  if (threadIdx.x != 0) return;
  if (!dense) count_step(head, kept, tokens, everything);
  leave_marks(head, tokens, everything);
}

#include "cuda/methods/page_scores.h"

#include "core/view.h"

namespace kvsift {
namespace {

constexpr std::uint32_t kBlocksOfMultiprocessor = 3;

kvsift_status score_pages(const Launcher &to, const Call &call, std::uint32_t heads, const kvsift_view &query, KernelId kernel) {
  const Settings &s = call.image.s;
  const std::uint32_t pages = call.tokens == 0 ? s.max_pages : blocks_of(call.tokens, s.c.page_tokens);
  // Enough to fill the machine; what is left over they take in turns.
  const std::uint32_t most = blocks_of(to.device.multiprocessors * kBlocksOfMultiprocessor, heads);
  const std::uint32_t wanted = blocks_of(pages, kPagesOfBlock);
  const LaunchShape shape{wanted < most ? wanted : most, heads, 1, kScoreThreads, 0};
  return launch(to.device, kernel, shape, to.stream, PageScoreArgs{call, query}, to.error);
}

}  // namespace

kvsift_status score_quest(const Launcher &to, const Call &call, std::uint32_t heads, const kvsift_query &query) {
  return score_pages(to, call, heads, query.view, kKernel_quest_scores);
}

kvsift_status score_page_stats(const Launcher &to, const Call &call, std::uint32_t heads, const kvsift_query &query) {
  const bool int8 = call.image.s.c.moments_type == KVSIFT_I8;
  return score_pages(to, call, heads, query.view, int8 ? kKernel_page_scores_i8 : kKernel_page_scores_f16);
}

kvsift_status leave_tail_logits(const Launcher &to, const Call &call, std::uint32_t heads, const kvsift_view &query) {
  const bool int8 = call.image.s.c.moments_type == KVSIFT_I8;
  return score_pages(to, call, heads, query, int8 ? kKernel_tail_logits_i8 : kKernel_tail_logits_f16);
}

kvsift_status leave_late_scores(const Launcher &to, const Call &call, std::uint32_t heads, const kvsift_view &query) {
  const bool int8 = call.image.s.c.moments_type == KVSIFT_I8;
  return score_pages(to, call, heads, query, int8 ? kKernel_late_scores_i8 : kKernel_late_scores_f16);
}

std::uint32_t bytes_of_bounds(const Settings &s) { return s.dim16 * 4; }

std::uint32_t bytes_of_moments(const Settings &s) { return s.dim16 * 2 * element_bytes(s.c.moments_type); }

}  // namespace kvsift

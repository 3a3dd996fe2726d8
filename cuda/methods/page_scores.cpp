#include "cuda/methods/page_scores.h"

#include "core/view.h"

namespace kvsift {
namespace {

struct ScoreKernel {
  KernelId id;
  std::uint32_t resident;  // blocks that a multiprocessor has registers for
};

ScoreKernel by_type(const Call &call, KernelId f16, KernelId i8) {
  return call.image.s.c.moments_type == KVSIFT_I8 ? ScoreKernel{i8, 6} : ScoreKernel{f16, 3};
}

kvsift_status score_pages(const Launcher &to, const Call &call, std::uint32_t heads, const kvsift_view &query,
                          const ScoreKernel &kernel) {
  const Settings &s = call.image.s;
  const std::uint32_t pages = call.tokens == 0 ? s.max_pages : blocks_of(call.tokens, s.c.page_tokens);
  // Enough to fill the machine; what is left over they take in turns.
  const std::uint32_t most = blocks_of(to.device.multiprocessors * kernel.resident, heads);
  const std::uint32_t wanted = blocks_of(pages, kPagesOfBlock);
  const LaunchShape shape{wanted < most ? wanted : most, heads, 1, kScoreThreads, 0};
  return launch(to.device, kernel.id, shape, to.stream, PageScoreArgs{call, query}, to.error);
}

}  // namespace

kvsift_status score_quest(const Launcher &to, const Call &call, std::uint32_t heads, const kvsift_query &query) {
  return score_pages(to, call, heads, query.view, ScoreKernel{kKernel_quest_scores, 3});
}

kvsift_status score_page_stats(const Launcher &to, const Call &call, std::uint32_t heads, const kvsift_query &query) {
  return score_pages(to, call, heads, query.view, by_type(call, kKernel_page_scores_f16, kKernel_page_scores_i8));
}

kvsift_status leave_tail_logits(const Launcher &to, const Call &call, std::uint32_t heads, const kvsift_view &query) {
  return score_pages(to, call, heads, query, by_type(call, kKernel_tail_logits_f16, kKernel_tail_logits_i8));
}

kvsift_status leave_late_scores(const Launcher &to, const Call &call, std::uint32_t heads, const kvsift_view &query) {
  return score_pages(to, call, heads, query, by_type(call, kKernel_late_scores_f16, kKernel_late_scores_i8));
}

std::uint32_t bytes_of_bounds(const Settings &s) { return s.dim16 * 4; }

std::uint32_t bytes_of_moments(const Settings &s) { return s.dim16 * 2 * element_bytes(s.c.moments_type); }

}  // namespace kvsift

// Quest (2406.10774): a page's score is an upper bound of its logits, from the minimum and maximum of its keys.
#include "methods/page_stats.h"

namespace kvsift {
namespace {

// Two dense layers and at least the last page, as in the authors' code.
void defaults(kvsift_policy_config *c) {
  c->budget_tokens = 1024;
  c->local_tokens = 16;
  c->dense_layers = 2;
}

std::uint32_t score(const HeadState &head, const QueryRows &query, std::uint32_t pages, float *scores, std::uint64_t stride) {
  const Settings &s = head.settings();
  head.k().page.score_bounds(query.rows, s.group, head.at<F16>(head.places().key_min),
                             head.at<F16>(head.places().key_max), s.c.head_dim, pages, s.scale, scores, stride);
  head.unit->counters.state_bytes_touched += std::uint64_t{pages} * s.dim16 * 4;
  return pages;
}

}  // namespace

constexpr Method kQuest = [] {
  Method m{};
  m.name = "quest";
  m.defaults = defaults;
  m.check = check_whole_pages;
  m.needs = KVSIFT_NEEDS_KEYS | KVSIFT_NEEDS_QUERY;
  m.score = score;
  m.kind = ScoreKind::kLog;
  return m;
}();

}  // namespace kvsift

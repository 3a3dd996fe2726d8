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
  const std::uint64_t stride_bytes = std::uint64_t{s.dim16} * sizeof(F16);
  const Rows low{head.at<std::uint8_t>(head.places().key_min), KVSIFT_F16, stride_bytes, nullptr, 0};
  const Rows high{head.at<std::uint8_t>(head.places().key_max), KVSIFT_F16, stride_bytes, nullptr, 0};
  head.k().page.bounds(query.rows, s.group, low, high, pages, s.c.head_dim, s.scale, scores, stride);
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

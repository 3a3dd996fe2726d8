// Page statistics (UNIQUE, 2605.27740): a page's score is q.mean + 0.5 |q|.deviation of its keys.
#include "methods/page_stats.h"

#include "policy/pages.h"

namespace kvsift {
namespace {

void defaults(kvsift_policy_config *c) {
  c->sink_tokens = 16;
  c->local_tokens = 64;
  c->budget_tokens = 1024;
  c->dense_layers = 2;
}

std::uint32_t score(const HeadState &head, const QueryRows &query, std::uint32_t pages, float *scores, std::uint64_t stride) {
  // The tail's logits come from the same two rows of each page: left in scratch for kvsift_attend.
  const bool tail = head.settings().value_moments;
  page_scores(head, query, pages, scores, tail ? head.scratch().spare : nullptr, stride);
  if (tail) {
    head.marks().tail_layer = head.layer;
    head.marks().tail_tokens = query.tokens;
  }
  return pages;
}

}  // namespace

kvsift_status check_whole_pages(const kvsift_policy_config &c, kvsift_error *error) {
  if (c.block_tokens == c.page_tokens) return KVSIFT_OK;
  return fail(error, KVSIFT_INVALID_ARGUMENT, "config.block_tokens is ", c.block_tokens, ", not page_tokens ",
              c.page_tokens, ": this method chooses whole pages");
}

void page_scores(const HeadState &head, const QueryRows &query, std::uint32_t pages, float *scores,
                 float *tail_logits, std::uint64_t stride) {
  const Settings &s = head.settings();
  const Moments moments = moments_of(head, query.tokens);
  moment_logits(head.k(), query.rows, s.group, s.scale, moments, 0, pages, tail_logits, scores, stride);
  head.unit->counters.state_bytes_touched += std::uint64_t{pages} * s.dim16 * 2 * element_bytes(s.c.moments_type);
}

constexpr Method kPageStats = [] {
  Method m{};
  m.name = "page-stats";
  m.defaults = defaults;
  m.check = check_whole_pages;
  m.needs = KVSIFT_NEEDS_KEYS | KVSIFT_NEEDS_QUERY;
  m.score = score;
  m.kind = ScoreKind::kLog;
  return m;
}();

}  // namespace kvsift

// Page statistics (UNIQUE, 2605.27740): a page's score is q.mean + 0.5 |q|.deviation of its keys.
#include "methods/page_stats.h"

#include "policy/pages.h"

namespace kvsift {
namespace {

void count_page_bytes(const HeadState &head, std::uint32_t pages) {
  const Settings &s = head.settings();
  head.unit->counters.state_bytes_touched += std::uint64_t{pages} * s.dim16 * 2 * element_bytes(s.c.moments_type);
}

void defaults(kvsift_policy_config *c) {
  c->sink_tokens = 16;
  c->local_tokens = 64;
  c->budget_tokens = 1024;
  c->dense_layers = 2;
}

// With the moments tail the squared deviations are at hand: a page is ranked by what its largest logit is likely to be.
// That finds single tokens that matter better than the page's mass does, and the tail stands for the mass. One pass over
// the page's rows serves both; the tail's logits stay in scratch for kvsift_attend.
void score_for_tail(const HeadState &head, const QueryRows &query, std::uint32_t pages, float *scores,
                    std::uint64_t stride) {
  const Settings &s = head.settings();
  moment_logits(head.k(), query.rows, s.group, s.scale, moments_of(head, query.tokens), 0, pages, head.scratch().spare,
                scores, stride);
  head.marks().tail_layer = head.layer;
  head.marks().tail_tokens = query.tokens;
  count_page_bytes(head, pages);
}

std::uint32_t score(const HeadState &head, const QueryRows &query, std::uint32_t pages, float *scores, std::uint64_t stride) {
  if (head.settings().value_moments) {
    score_for_tail(head, query, pages, scores, stride);
  } else {
    page_scores(head, query, pages, scores, stride);
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
                 std::uint64_t stride) {
  const Settings &s = head.settings();
  moment_scores(head.k(), query.rows, s.group, s.scale, moments_of(head, query.tokens), 0, pages, scores, stride);
  count_page_bytes(head, pages);
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

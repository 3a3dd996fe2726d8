// A prompt compressed by importance: known only at its end, from the cache.
#include "balance/compress.h"
#include "balance/importance.h"
#include "policy/coreset.h"

namespace kvsift {
namespace {

struct GradePlaces {
  Offset<float> row, importance;  // [max_tokens]
  CompressPlaces compress;
};

BalancePlan grade_plan(const Settings &s, std::uint32_t layer) {
  BalancePlan plan = coreset_plan(s, layer);
  plan.c.halvings = s.coreset.levels;
  plan.c.group_tokens = s.coreset.group;
  return plan;
}

GradePlaces lay_out_grade(Layout *layout, const Settings &s, const BalancePlan &plan) {
  GradePlaces p{};
  p.row = layout->take<float>(s.c.max_tokens, "attention row");
  p.importance = layout->take<float>(s.c.max_tokens, "importance");
  p.compress = lay_out_compress(layout, plan, s.c.max_tokens);
  return p;
}

// Mean softmax share of each token in the last `window` queries.
void find_importance(const Settings &s, const Prefill &job, float *row, float *importance) {
  const std::uint32_t rows = job.rows < s.c.window ? job.rows : s.c.window;
  const float share = 1.0f / static_cast<float>(job.group * rows);
  float queries[KVSIFT_MAX_GROUP * KVSIFT_MAX_HEAD_DIM];
  for (std::uint32_t i = 0; i < job.tokens; ++i) importance[i] = 0.0f;
  for (std::uint32_t r = job.rows - rows; r < job.rows; ++r) {
    prefill_queries(job, r, queries);
    for (std::uint32_t g = 0; g < job.group; ++g) {
      add_importance(*job.kernels, job.keys, job.dim, job.scale, queries + g * s.dim16,
                     job.tokens - job.rows + r + 1, share, row, importance);
    }
  }
}

}  // namespace

std::uint64_t grade_scratch_bytes(const Settings &s) {
  Layout layout;
  lay_out_grade(&layout, s, grade_plan(s, 0));
  return layout.used();
}

void grade_prompt(const HeadState &head, const Prefill &job) {
  const Settings &s = head.settings();
  const CoresetShape &shape = s.coreset;
  Coreset coreset = coreset_of(head);
  const std::uint64_t exact = std::uint64_t{shape.sinks} + shape.lag;
  if (coreset.state->closed != 0 || job.tokens <= exact) return;
  const auto tokens = static_cast<std::uint32_t>(job.tokens - exact);
  if (tokens >> shape.levels == 0) return;
  char *scratch = coreset_scratch_of(head);
  BalancePlan plan = grade_plan(s, head.layer);
  Layout layout;
  const GradePlaces places = lay_out_grade(&layout, s, plan);
  find_importance(s, job, places.row.in(scratch), places.importance.in(scratch));
  plan.c.importance = places.importance.in(scratch);
  BalanceCounters counters{};
  const BalanceSource source{job.keys, job.values, nullptr, head.kv_head, true};
  const kvsift_range range{shape.sinks, shape.sinks + tokens};
  compress(CompressJob{plan, *job.kernels, places.compress, scratch, source, range, &counters,
                       shape.guard_most(tokens)});
  coreset.replace(places.compress.weight_of.in(scratch), range.end,
                  static_cast<std::uint32_t>(counters.guarded));
}

}  // namespace kvsift

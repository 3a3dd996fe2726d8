#include "policy/select.h"

#include <cmath>

#include "methods/method.h"
#include "methods/page_stats.h"
#include "policy/coreset.h"
#include "policy/group.h"
#include "policy/lists.h"
#include "policy/target.h"
#include "policy/top_blocks.h"
#include "policy/undo.h"

namespace kvsift {
namespace {

void count_list(const HeadState &head, std::uint32_t kept, std::uint32_t tokens) {
  Counters &counters = head.unit->counters;
  ++counters.selections;
  counters.tokens_kept += kept;
  counters.tokens_total += tokens;
}

std::uint32_t drop_evicted(const float *scores, std::uint32_t *blocks, std::uint32_t count) {
  std::uint32_t kept = 0;
  for (std::uint32_t i = 0; i < count; ++i) {
    if (scores[blocks[i]] != -INFINITY) blocks[kept++] = blocks[i];
  }
  return kept;
}

// Blocks that the page statistics rank among the best `k` and that were not chosen, at most `cap`, best first taken.
// `choice` is overwritten; the late blocks are merged into `blocks`.
std::uint32_t add_late(const HeadState &head, std::uint32_t list, float *late, float *choice, Crop crop, std::uint32_t k,
                       std::uint32_t *blocks, std::uint32_t count) {
  Policy *policy = head.policy;
  const std::uint32_t cap = policy->s.c.verify_blocks;
  const std::uint64_t index = std::uint64_t{head.kv_head} * policy->s.lists + list;
  std::uint32_t *missed = policy->missed.in(policy) + index * cap;
  auto *best = reinterpret_cast<std::uint32_t *>(choice);
  const std::uint32_t best_count = top_blocks(head.k(), late, crop.begin, crop.end - crop.begin, k, best);
  // Only blocks of `best` that are not chosen keep their score.
  std::uint32_t b = 0, c = 0;
  for (std::uint32_t i = crop.begin; i < crop.end; ++i) {
    while (c < count && blocks[c] < i) ++c;
    const bool chosen = c < count && blocks[c] == i;
    const bool wanted = b < best_count && best[b] == i;
    b += wanted;
    if (!wanted || chosen) late[i] = -INFINITY;
  }
  std::uint32_t added = top_blocks(head.k(), late, crop.begin, crop.end - crop.begin, cap, missed);
  added = drop_evicted(late, missed, added);
  policy->missed_counts.in(policy)[index] = added;
  head.unit->counters.missed_blocks += added;
  // Merge from the back; the two lists have no block in common.
  std::uint32_t from = added, to = count + added;
  while (from > 0) {
    if (count > 0 && blocks[count - 1] > missed[from - 1]) {
      blocks[--to] = blocks[--count];
    } else {
      blocks[--to] = missed[--from];
    }
  }
  return added;
}

std::uint32_t write_ranked(const HeadState &head, std::uint32_t list, const Ranking &r, const std::uint32_t *blocks,
                           std::uint32_t count) {
  const std::uint32_t sinks = head.settings().c.sink_tokens;
  const std::uint32_t local_begin = r.tokens > r.local ? r.tokens - r.local : 0;
  return write_list(head, list,
                    ListParts{blocks, count, sinks < r.tokens ? sinks : r.tokens, local_begin, r.tokens});
}

// Scores of all lists in scratch.scores; returns how many blocks have one.
std::uint32_t score_lists(const HeadState &head, const Method &method, const QueryRows &query, std::uint32_t blocks,
                          const Scratch &scratch, ScoreKind *kind) {
  *kind = method.kind;
  if (method.score == nullptr) return blocks;
  const std::uint32_t scored = method.score(head, query, blocks, scratch.scores, scratch.stride);
  if ((method.needs & KVSIFT_NEEDS_QUERY) != 0) {
    *kind = reduce_group(head, method.kind, scored, scratch.scores, scratch.stride);
  }
  return scored;
}

void evict_unlisted(const HeadState &head, const Method &method, std::uint32_t list, std::uint32_t blocks) {
  const Policy *policy = head.policy;
  const std::uint64_t index = std::uint64_t{head.kv_head} * policy->s.lists + list;
  method.evict(head, list, blocks, policy->blocks.in(policy) + index * policy->s.list_blocks,
               policy->block_counts.in(policy)[index]);
}

void select_ranked(const HeadState &head, const Method &method, const Step &step, const QueryRows &query) {
  const Settings &s = head.settings();
  const Scratch scratch = head.scratch();
  const std::uint32_t blocks = blocks_of(step.tokens, s.c.block_tokens);
  ScoreKind kind;
  const std::uint32_t scored = score_lists(head, method, query, blocks, scratch, &kind);
  Ranking r = rank_for(s, step.tokens, scored);
  if (method.exact_from != nullptr) r.local = step.tokens - method.exact_from(head, step.tokens);
  const bool verify = s.c.verify_blocks > 0 && (method.needs & KVSIFT_NEEDS_QUERY) == 0;
  if (verify) {
    page_scores(head, query, blocks, scratch.spare, scratch.stride);
    reduce_group(head, ScoreKind::kLog, blocks, scratch.spare, scratch.stride);
  }
  auto *chosen = reinterpret_cast<std::uint32_t *>(scratch.choice);
  const std::uint32_t candidates = method.score == nullptr || r.crop.end <= r.crop.begin ? 0 : r.crop.end - r.crop.begin;
  for (std::uint32_t list = 0; list < s.lists; ++list) {
    float *scores = scratch.scores + list * scratch.stride;
    std::uint32_t count = 0;
    if (candidates > 0) {
      const std::uint32_t k = s.c.target_mass > 0
                                  ? blocks_for_target(head, kind, scores, scored, r.crop, r.k, chosen)
                                  : r.k;
      count = top_blocks(head.k(), scores, r.crop.begin, candidates, k, chosen);
      count = drop_evicted(scores, chosen, count);
      if (verify) {
        // The scores of this list are spent: their row is the room for the page statistics' best.
        count += add_late(head, list, scratch.spare + list * scratch.stride, scores, r.crop, k, chosen, count);
      }
    }
    const std::uint32_t kept = write_ranked(head, list, r, chosen, count);
    count_list(head, kept, step.tokens);
    if (method.evict != nullptr) evict_unlisted(head, method, list, blocks);
  }
}

void decide(const HeadState &head, const Method &method) {
  const Settings &s = head.settings();
  head.unit->prompt_tokens = prompt_of(*head.policy);
  for (std::uint32_t list = 0; list < s.lists; ++list) {
    Chosen chosen{head.at<std::uint32_t>(head.places().kept) + std::uint64_t{list} * s.kept_blocks, 0, s.kept_blocks};
    if (head.unit->prompt_tokens > 0) method.keep(head, list, &chosen);
    head.at<std::uint32_t>(head.places().kept_counts)[list] = chosen.count;
  }
  head.unit->decided = 1;
}

void select_kept(const HeadState &head, const Method &method, const Step &step) {
  const Settings &s = head.settings();
  const std::uint32_t prompt = prompt_of(*head.policy);
  if (head.unit->decided == 0 || head.unit->prompt_tokens != prompt) decide(head, method);
  const std::uint32_t sinks = s.c.sink_tokens < step.tokens ? s.c.sink_tokens : step.tokens;
  const std::uint32_t local_begin = prompt > s.prompt_local ? prompt - s.prompt_local : 0;
  for (std::uint32_t list = 0; list < s.lists; ++list) {
    const std::uint32_t *kept = head.at<std::uint32_t>(head.places().kept) + std::uint64_t{list} * s.kept_blocks;
    const std::uint32_t count = head.at<std::uint32_t>(head.places().kept_counts)[list];
    const std::uint32_t tokens = write_list(head, list, ListParts{kept, count, sinks, local_begin, step.tokens});
    count_list(head, tokens, step.tokens);
  }
}

}  // namespace

Step step_at(const Policy &policy, std::uint32_t tokens) {
  const kvsift_policy_config &c = policy.s.c;
  const Method &method = *method_of(c.method);
  Step step{tokens, attends_to_all(policy.s, tokens), false};
  if (method.keep != nullptr) {
    // Decoded tokens are kept beside the budget.
    const std::uint32_t prompt = prompt_of(policy);
    step.everything = tokens <= policy.s.dense_tokens || budget_at(c, prompt) >= prompt;
  }
  const bool learns = (policy.s.needs & KVSIFT_NEEDS_ATTENTION) != 0;
  const std::uint64_t decode_step = std::uint64_t{policy.decode_steps} + tokens - policy.tokens;
  step.calibration = learns && !method.evicts && c.calibration_period > 0 && decode_step % c.calibration_period == 0;
  return step;
}

void select_dense(Policy *policy, std::uint32_t layer, std::uint32_t kv_head, std::uint32_t tokens) {
  const HeadState head{policy, nullptr, layer, kv_head};
  for (std::uint32_t list = 0; list < policy->s.lists; ++list) {
    policy->block_counts.in(policy)[kv_head * policy->s.lists + list] = 0;
    write_everything(head, list, tokens);
  }
  head.marks() = HeadMarks{layer, tokens, 0, 0};
}

void select_head(const HeadState &head, const Step &step, const float *queries) {
  const Settings &s = head.settings();
  const Method &method = *method_of(s.c.method);
  Policy *policy = head.policy;
  for (std::uint32_t list = 0; list < s.lists; ++list) {
    const std::uint64_t index = std::uint64_t{head.kv_head} * s.lists + list;
    policy->block_counts.in(policy)[index] = 0;
    policy->missed_counts.in(policy)[index] = 0;
  }
  head.marks() = HeadMarks{head.layer, step.tokens, 0, 0};
  if (method.evict != nullptr) remember(head, step.tokens - 1);
  if (has_coreset(s)) close_coreset(head);
  if (method.keep != nullptr && !step.everything) {
    select_kept(head, method, step);
  } else if (!step.everything) {
    select_ranked(head, method, step, QueryRows{queries, step.tokens});
  }
  if (has_coreset(s) && !step.everything) select_coreset(head);
  const bool everything = step.everything || (step.calibration && s.c.calibration_dense != 0);
  if (everything) {
    for (std::uint32_t list = 0; list < s.lists; ++list) write_everything(head, list, step.tokens);
  }
  head.unit->selected_for = step.tokens;
  head.unit->counters.tokens_read += union_of_lists(head);
}

}  // namespace kvsift

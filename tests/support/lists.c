#include "lists.h"

#include "cases.h"

uint32_t budget_of(const kvsift_policy_config *c, uint32_t tokens) {
  const uint32_t share = (uint32_t)((double)c->budget_share * tokens);
  return share > c->budget_tokens ? share : c->budget_tokens;
}

uint32_t pyramid_budget(const kvsift_policy_config *c, uint32_t layer, uint32_t prompt) {
  const uint32_t mean = budget_of(c, prompt) - c->window;
  if (prompt < 2 * mean || c->layers == 1) return budget_of(c, prompt);
  uint32_t low = mean / c->pyramid_beta, high = 2 * mean - low;
  if (high >= prompt - c->window) {
    high = prompt - c->window;
    low = 2 * mean - high;
  }
  return c->window + high - layer * ((high - low) / (c->layers - 1));
}

int list_keeps(const kvsift_selection *sel, uint32_t list, uint32_t token) {
  const kvsift_range *ranges = sel->ranges + (uint64_t)list * sel->range_stride;
  for (uint32_t i = 0; i < sel->range_counts[list]; ++i) {
    if (token >= ranges[i].begin && token < ranges[i].end) return 1;
  }
  return 0;
}

static int decides_once(kvsift_method method) {
  return method == KVSIFT_METHOD_SNAPKV || method == KVSIFT_METHOD_PYRAMIDKV || method == KVSIFT_METHOD_UNIFORM;
}

/* The most tokens a list of this step may keep. */
static uint32_t most_kept(const kvsift_policy_config *c, uint32_t prompt, const session_answer *a) {
  uint32_t most = budget_of(c, a->tokens);
  /* Tokens that the coreset has not taken in stay exact. */
  if (c->method == KVSIFT_METHOD_BALANCE) return a->tokens;
  if (decides_once(c->method)) {
    most = budget_of(c, prompt);
    const int votes = c->method == KVSIFT_METHOD_SNAPKV || c->method == KVSIFT_METHOD_PYRAMIDKV;
    const uint32_t local = votes && c->window > c->local_tokens ? c->window : c->local_tokens;
    const uint32_t fixed = c->sink_tokens + local;
    if (c->method == KVSIFT_METHOD_PYRAMIDKV) most = pyramid_budget(c, a->layer, prompt);
    most = (most > fixed ? most : fixed) + a->tokens - prompt;
  }
  return most + c->verify_blocks * c->block_tokens;
}

static uint32_t check_ranges(const kvsift_selection *sel, uint32_t list) {
  const kvsift_range *ranges = sel->ranges + (uint64_t)list * sel->range_stride;
  const uint32_t count = sel->range_counts[list];
  uint32_t kept = 0;
  expect(count > 0 && count <= sel->range_stride, "list %u has %u ranges of %u", list, count, sel->range_stride);
  for (uint32_t i = 0; i < count; ++i) {
    expect(ranges[i].begin < ranges[i].end && ranges[i].end <= sel->tokens, "list %u: range %u is [%u, %u) of %u tokens",
           list, i, ranges[i].begin, ranges[i].end, sel->tokens);
    expect(i == 0 || ranges[i].begin > ranges[i - 1].end, "list %u: range %u begins at %u, the one before ends at %u",
           list, i, ranges[i].begin, ranges[i - 1].end);
    kept += ranges[i].end - ranges[i].begin;
  }
  return kept;
}

static void check_blocks(const kvsift_selection *sel, uint32_t list) {
  const uint32_t *blocks = sel->blocks + (uint64_t)list * sel->block_stride;
  const uint32_t count = sel->block_counts[list], size = sel->block_tokens;
  uint32_t next = 0;
  expect(count <= sel->block_stride, "list %u has %u blocks of %u", list, count, sel->block_stride);
  for (uint32_t block = 0; block * size < sel->tokens; ++block) {
    int touched = 0;
    for (uint32_t t = block * size; t < (block + 1) * size && t < sel->tokens; ++t) touched |= list_keeps(sel, list, t);
    if (!touched) continue;
    expect(next < count && blocks[next] == block, "list %u: block %u holds a kept token and is not named", list, block);
    ++next;
  }
  expect(next == count, "list %u names %u blocks, %u hold a kept token", list, count, next);
}

static void check_always_kept(const kvsift_policy_config *c, uint32_t prompt, const session_answer *a, uint32_t list) {
  for (uint32_t t = 0; t < c->sink_tokens && t < a->tokens; ++t) {
    expect(list_keeps(a->selection, list, t), "list %u misses the sink %u", list, t);
  }
  const uint32_t from = decides_once(c->method) ? prompt : a->tokens;
  for (uint32_t t = from > c->local_tokens ? from - c->local_tokens : 0; t < a->tokens; ++t) {
    expect(list_keeps(a->selection, list, t), "list %u of %u tokens misses the local token %u", list, a->tokens, t);
  }
  expect(list_keeps(a->selection, list, a->tokens - 1), "list %u misses the newest token", list);
}

void lists_check(const kvsift_policy_config *c, uint32_t prompt, const session_answer *a) {
  const kvsift_selection *sel = a->selection;
  const uint32_t group = c->query_heads / c->kv_heads;
  expect(sel->tokens == a->tokens, "selection for %u tokens, asked for %u", sel->tokens, a->tokens);
  expect(sel->lists == c->kv_heads * (c->grouping == KVSIFT_GROUP_QUERY_HEAD ? group : 1), "%u lists", sel->lists);
  for (uint32_t list = 0; list < sel->lists; ++list) {
    const uint32_t kept = check_ranges(sel, list);
    check_always_kept(c, prompt, a, list);
    if (sel->everything) {
      expect(kept == sel->tokens, "everything of list %u is %u of %u tokens", list, kept, sel->tokens);
      expect(sel->calibration || sel->block_counts[list] == 0, "list %u of everything names blocks", list);
      continue;
    }
    expect(kept <= most_kept(c, prompt, a), "list %u of layer %u keeps %u tokens of %u, the budget is %u", list,
           a->layer, kept, a->tokens, most_kept(c, prompt, a));
    check_blocks(sel, list);
  }
}

// SnapKV (2404.14469): at the end of the prompt its last `window` queries vote for what to keep; votes are smoothed
// along the tokens. Decoded tokens are kept.
#include "methods/snapkv.h"

#include <cmath>

#include "policy/top_blocks.h"

namespace kvsift {
namespace snapkv {
namespace {

enum { kVotes };  // float [lists][max_blocks]

float *votes(const HeadState &head, std::uint32_t list) {
  return head.state<float>(kVotes) + std::uint64_t{list} * head.settings().max_blocks;
}

// One-dimensional pooling over `count` votes. The average counts the zeros beyond the ends, as the published code does.
void smooth(const kvsift_policy_config &c, const float *in, std::uint32_t count, float *out) {
  const std::uint32_t reach = c.pool_kernel / 2;
  for (std::uint32_t i = 0; i < count; ++i) {
    const std::uint32_t begin = i > reach ? i - reach : 0;
    const std::uint32_t end = count - i > reach ? i + reach + 1 : count;
    float sum = 0, best = -INFINITY;
    for (std::uint32_t j = begin; j < end; ++j) {
      sum += in[j];
      best = in[j] > best ? in[j] : best;
    }
    out[i] = c.pooling == KVSIFT_POOL_AVG ? sum / static_cast<float>(c.pool_kernel) : best;
  }
}

}  // namespace

kvsift_status check(const kvsift_policy_config &c, kvsift_error *error) {
  if (c.window == 0 || c.window > c.budget_tokens - c.sink_tokens) {
    return fail(error, KVSIFT_INVALID_ARGUMENT, "config.window is ", c.window, ", not in 1 .. budget_tokens ",
                c.budget_tokens, " less sink_tokens ", c.sink_tokens);
  }
  if (c.pool_kernel % 2 == 0 || c.pool_kernel > 255) {
    return fail(error, KVSIFT_INVALID_ARGUMENT, "config.pool_kernel is ", c.pool_kernel, ", not odd or above 255");
  }
  if (c.pooling > KVSIFT_POOL_MAX) {
    return fail(error, KVSIFT_INVALID_ARGUMENT, "config.pooling is ", c.pooling, ", no KVSIFT_POOL_ value");
  }
  return KVSIFT_OK;
}

std::uint32_t prefill_rows(const Settings &s) { return s.c.window; }

void layout(UnitLayout *layout, const Settings &s) {
  layout->method[kVotes] = layout->growing<float>(s.lists, 1, Grows::kBlocks, "votes");
}

void begin_chunk(const HeadState &head) {
  const Settings &s = head.settings();
  for (std::uint64_t i = 0; i < std::uint64_t{s.lists} * s.max_blocks; ++i) votes(head, 0)[i] = 0;
}

void observe(const HeadState &head, const Row &row) {
  if (!row.prompt) return;
  for (std::uint32_t list = 0; list < head.settings().lists; ++list) {
    head.k().array.axpby(1.0f, votes(head, list), 1.0f, row.mass + list * row.stride, row.blocks);
  }
}

void keep_best(const HeadState &head, std::uint32_t list, std::uint32_t budget, Chosen *chosen) {
  const Settings &s = head.settings();
  const std::uint32_t prompt = head.unit->prompt_tokens;
  const std::uint32_t local = s.prompt_local < prompt ? s.prompt_local : prompt;
  const std::uint32_t fixed = s.c.sink_tokens + local;
  // Whole blocks before the window compete.
  const std::uint32_t begin = s.c.sink_tokens / s.c.block_tokens, end = (prompt - local) / s.c.block_tokens;
  const std::uint32_t k = budget > fixed ? (budget - fixed) / s.c.block_tokens : 0;
  float *smoothed = head.scratch().scores;
  smooth(s.c, votes(head, list), end, smoothed);
  if (end > begin) {
    const std::uint32_t most = k < chosen->capacity ? k : chosen->capacity;
    chosen->count = top_blocks(head.k(), smoothed, begin, end - begin, most, chosen->blocks);
  }
}

}  // namespace snapkv

namespace {

// 32 / 5 / avg and 2048 tokens, the original code's init.
void defaults(kvsift_policy_config *c) {
  c->block_tokens = 1;
  c->budget_tokens = 2048;
}

void keep(const HeadState &head, std::uint32_t list, Chosen *chosen) {
  const Settings &s = head.settings();
  snapkv::keep_best(head, list, budget_at(s.c, head.unit->prompt_tokens), chosen);
}

}  // namespace

constexpr Method kSnapKv = [] {
  Method m{};
  m.name = "snapkv";
  m.defaults = defaults;
  m.check = snapkv::check;
  m.needs = KVSIFT_NEEDS_MASS;
  m.evicts = true;
  m.prefill_rows = snapkv::prefill_rows;
  m.layout = snapkv::layout;
  m.begin_chunk = snapkv::begin_chunk;
  m.observe = snapkv::observe;
  m.keep = keep;
  return m;
}();

}  // namespace kvsift

// Uniform sampling: the control that a balanced or learned choice has to beat. Sinks, the prompt's newest tokens, and a
// random sample between them; decoded tokens are kept.
#include "core/philox.h"
#include "methods/method.h"
#include "methods/uniform.h"
#include "policy/top_blocks.h"

namespace kvsift {
namespace {

void defaults(kvsift_policy_config *c) {
  c->block_tokens = 1;
  c->sink_tokens = 32;
  c->local_tokens = 32;
  c->budget_tokens = 1024;
}

void keep(const HeadState &head, std::uint32_t list, Chosen *chosen) {
  const Settings &s = head.settings();
  const std::uint32_t size = s.c.block_tokens, prompt = head.unit->prompt_tokens;
  const std::uint32_t fixed = s.c.sink_tokens + s.c.local_tokens, budget = budget_at(s.c, prompt);
  const std::uint32_t begin = blocks_of(s.c.sink_tokens, size);
  const std::uint32_t end = prompt > s.c.local_tokens ? (prompt - s.c.local_tokens) / size : 0;
  float *draws = head.scratch().scores;
  const std::uint32_t query_head = head.kv_head * s.lists + list;
  for (std::uint32_t i = begin; i < end; ++i) {
    draws[i] = uniform_of(philox_at(s.c.seed, head.layer, query_head, i, kUniformDraw).word[0]);
  }
  if (end <= begin) return;
  chosen->count = top_blocks(head.k(), draws, begin, end - begin, (budget - fixed) / size, chosen->blocks);
}

}  // namespace

constexpr Method kUniform = [] {
  Method m{};
  m.name = "uniform";
  m.defaults = defaults;
  m.evicts = true;
  m.keep = keep;
  return m;
}();

}  // namespace kvsift

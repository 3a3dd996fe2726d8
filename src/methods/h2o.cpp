// H2O (2306.14048): the newest tokens and those that received most attention since they entered. What is left out once
// is gone.
#include <cmath>

#include "methods/method.h"

namespace kvsift {
namespace {

enum { kReceived };  // float [lists][max_blocks]: attention received so far; minus infinity: evicted

float *received(const HeadState &head, std::uint32_t list) {
  return head.state<float>(kReceived) + std::uint64_t{list} * head.settings().max_blocks;
}

void defaults(kvsift_policy_config *c) {
  c->block_tokens = 1;
  c->recent_share = 0.5f;
  c->budget_tokens = 1024;
}

std::uint32_t prefill_rows(const Settings &) { return UINT32_MAX; }

void layout(UnitLayout *layout, const Settings &s) {
  layout->method[kReceived] = layout->step<float>(std::uint64_t{s.lists} * s.max_blocks, "attention received");
}

void observe(const HeadState &head, const Row &row) {
  for (std::uint32_t list = 0; list < head.settings().lists; ++list) {
    head.k().array.axpby(1.0f, received(head, list), 1.0f, row.mass + list * row.stride, row.blocks);
  }
}

std::uint32_t score(const HeadState &head, const QueryRows &, std::uint32_t blocks, float *scores, std::uint64_t stride) {
  for (std::uint32_t list = 0; list < head.settings().lists; ++list) {
    for (std::uint32_t i = 0; i < blocks; ++i) scores[list * stride + i] = received(head, list)[i];
  }
  return blocks;
}

void evict(const HeadState &head, std::uint32_t list, std::uint32_t blocks, const std::uint32_t *kept, std::uint32_t count) {
  float *row = received(head, list);
  for (std::uint32_t i = 0, begin = 0; i <= count; ++i) {
    const std::uint32_t end = i < count ? kept[i] : blocks;
    for (; begin < end; ++begin) row[begin] = -INFINITY;
    ++begin;
  }
}

}  // namespace

constexpr Method kH2o = [] {
  Method m{};
  m.name = "h2o";
  m.defaults = defaults;
  m.needs = KVSIFT_NEEDS_ATTENTION | KVSIFT_NEEDS_MASS;
  m.evicts = true;
  m.prefill_rows = prefill_rows;
  m.layout = layout;
  m.observe = observe;
  m.sums = received;
  m.score = score;
  m.kind = ScoreKind::kShare;
  m.evict = evict;
  return m;
}();

}  // namespace kvsift

// EMA: an exponential moving average of the pooled attention rows. Learns nothing, and so says what learning adds.
#include "methods/method.h"

namespace kvsift {
namespace {

enum { kAverage };  // float [lists][max_blocks]

float *average(const HeadState &head, std::uint32_t list) {
  return head.state<float>(kAverage) + std::uint64_t{list} * head.settings().max_blocks;
}

void defaults(kvsift_policy_config *c) {
  c->sink_tokens = 64;
  c->local_tokens = 64;
  c->budget_tokens = 1024;
  c->dense_layers = 2;
  c->ema_decay = 0.8f;
}

std::uint32_t prefill_rows(const Settings &s) { return s.c.history_rows; }

// Rows until one weighs less than 2^-24, by which a share of 1 is rounded.
std::uint32_t memory(const Settings &s) {
  double weight = 1;
  std::uint32_t rows = 0;
  for (; weight >= 0x1p-24 && rows < s.c.max_tokens; ++rows) weight *= static_cast<double>(s.c.ema_decay);
  return rows;
}

void layout(UnitLayout *layout, const Settings &s) {
  layout->method[kAverage] = layout->step<float>(std::uint64_t{s.lists} * s.max_blocks, "average rows");
}

void observe(const HeadState &head, const Row &row) {
  const float decay = head.settings().c.ema_decay;
  for (std::uint32_t list = 0; list < head.settings().lists; ++list) {
    head.k().array.axpby(decay, average(head, list), 1 - decay, row.peak + list * row.stride, row.blocks);
  }
}

std::uint32_t score(const HeadState &head, const QueryRows &, std::uint32_t blocks, float *scores, std::uint64_t stride) {
  for (std::uint32_t list = 0; list < head.settings().lists; ++list) {
    for (std::uint32_t i = 0; i < blocks; ++i) scores[list * stride + i] = average(head, list)[i];
  }
  return blocks;
}

}  // namespace

constexpr Method kEma = [] {
  Method m{};
  m.name = "ema";
  m.defaults = defaults;
  m.needs = KVSIFT_NEEDS_ATTENTION;
  m.prefill_rows = prefill_rows;
  m.layout = layout;
  m.observe = observe;
  m.memory = memory;
  m.score = score;
  m.kind = ScoreKind::kShare;
  return m;
}();

}  // namespace kvsift

// BalanceKV (2502.07861): sinks and the newest tokens exactly, and for all others a weighted coreset chosen without the
// queries (policy/coreset.h, balance/coreset.h). Decoded tokens are kept, or with `balance_streaming` compressed as they age.
#include "methods/method.h"
#include "policy/coreset.h"

namespace kvsift {
namespace {

// 32 sinks and a window of 32, as in the authors' scripts; group, gamma and temperature as they did best here.
void defaults(kvsift_policy_config *c) {
  c->sink_tokens = 32;
  c->local_tokens = 32;
  c->budget_tokens = 512;
  c->tail = KVSIFT_TAIL_BALANCE;
}

// The local tokens, and behind them what came since the prompt was closed.
std::uint32_t exact_from(const HeadState &head, std::uint32_t tokens) {
  const kvsift_policy_config &c = head.settings().c;
  const Coreset coreset = coreset_of(head);
  const std::uint32_t local = c.local_tokens > 0 ? c.local_tokens : 1;
  const std::uint32_t end = coreset.state->closed != 0 ? coreset.end() : tokens;
  return end > local ? end - local : 0;
}

}  // namespace

constexpr Method kBalance = [] {
  Method m{};
  m.name = "balance";
  m.defaults = defaults;
  m.needs = KVSIFT_NEEDS_KEYS | KVSIFT_NEEDS_VALUES;
  m.evicts = true;
  m.exact_from = exact_from;
  return m;
}();

}  // namespace kvsift

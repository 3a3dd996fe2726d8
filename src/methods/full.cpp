// Attention to everything: what every other method is measured against.
#include "methods/method.h"

namespace kvsift {
namespace {

void defaults(kvsift_policy_config *c) { c->budget_tokens = KVSIFT_MAX_TOKENS; }

}  // namespace

constexpr Method kFull = [] {
  Method m{};
  m.name = "full";
  m.defaults = defaults;
  return m;
}();

}  // namespace kvsift

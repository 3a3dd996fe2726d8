// StreamingLLM (2309.17453): the first `sink_tokens` and the newest tokens, whatever they hold.
#include "methods/method.h"

namespace kvsift {
namespace {

// start 4 and recent 512, as in the authors' class.
void defaults(kvsift_policy_config *c) {
  c->sink_tokens = 4;
  c->local_tokens = 0;
  c->budget_tokens = 516;
}

}  // namespace

constexpr Method kStreaming = [] {
  Method m{};
  m.name = "streaming";
  m.defaults = defaults;
  m.evicts = true;
  return m;
}();

}  // namespace kvsift

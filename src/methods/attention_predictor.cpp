#include "methods/method.h"

namespace kvsift {
namespace {

void defaults(kvsift_policy_config *c) { c->budget_tokens = 1024; }

kvsift_status check(const kvsift_policy_config &, kvsift_error *error) {
  return fail(error, KVSIFT_UNSUPPORTED, "this method is not in this build yet");
}

}  // namespace

constexpr Method kAttentionPredictor = [] {
  Method m{};
  m.name = "attention-predictor";
  m.defaults = defaults;
  m.check = check;
  return m;
}();

}  // namespace kvsift

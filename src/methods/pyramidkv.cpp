// PyramidKV (2406.02069): SnapKV with a budget that falls linearly over the layers.
#include "methods/snapkv.h"

namespace kvsift {
namespace {

void defaults(kvsift_policy_config *c) {
  c->block_tokens = 1;
  c->budget_tokens = 2048;
  c->pyramid_beta = 20;
}

kvsift_status check(const kvsift_policy_config &c, kvsift_error *error) {
  if (c.pyramid_beta == 0) {
    return fail(error, KVSIFT_INVALID_ARGUMENT, "config.pyramid_beta is 0");
  }
  return snapkv::check(c, error);
}

void keep(const HeadState &head, std::uint32_t list, Chosen *chosen) {
  const Settings &s = head.settings();
  snapkv::keep_best(head, list, snapkv::pyramid_budget(s.c, head.layer, head.unit->prompt_tokens), chosen);
}

}  // namespace

constexpr Method kPyramidKv = [] {
  Method m{};
  m.name = "pyramidkv";
  m.defaults = defaults;
  m.check = check;
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

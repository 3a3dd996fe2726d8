#include "policy/same_config.h"

namespace kvsift {

static_assert(sizeof(void *) != 8 || sizeof(kvsift_policy_config) == 216, "a new field goes into the list below");

ConfigDifference difference_of(const kvsift_policy_config &a, const kvsift_policy_config &b) {
  ConfigDifference found{nullptr, 0u, 0u};
  const auto compare = [&found](const char *name, auto x, auto y) {
    if (found.field == nullptr && x != y) found = ConfigDifference{name, x, y};
  };
// Left out: struct_size, the pointers, and tensor_attention, of which a CPU takes no notice. A predictor is told by its weights.
#define KVSIFT_SAME(field) compare(#field, a.field, b.field)
  KVSIFT_SAME(method);
  KVSIFT_SAME(layers);
  KVSIFT_SAME(query_heads);
  KVSIFT_SAME(kv_heads);
  KVSIFT_SAME(head_dim);
  KVSIFT_SAME(max_tokens);
  KVSIFT_SAME(block_tokens);
  KVSIFT_SAME(page_tokens);
  KVSIFT_SAME(budget_tokens);
  KVSIFT_SAME(budget_share);
  KVSIFT_SAME(target_mass);
  KVSIFT_SAME(sink_tokens);
  KVSIFT_SAME(local_tokens);
  KVSIFT_SAME(dense_layers);
  KVSIFT_SAME(grouping);
  KVSIFT_SAME(tail);
  KVSIFT_SAME(moments_type);
  KVSIFT_SAME(softmax_scale);
  KVSIFT_SAME(rollback_tokens);
  KVSIFT_SAME(dense_tokens);
  KVSIFT_SAME(seed);
  KVSIFT_SAME(window);
  KVSIFT_SAME(pool_kernel);
  KVSIFT_SAME(pooling);
  KVSIFT_SAME(pyramid_beta);
  KVSIFT_SAME(recent_share);
  KVSIFT_SAME(ema_decay);
  KVSIFT_SAME(calibration_period);
  KVSIFT_SAME(calibration_dense);
  KVSIFT_SAME(history_rows);
  KVSIFT_SAME(history_type);
  KVSIFT_SAME(history_floor);
  KVSIFT_SAME(predict_period);
  KVSIFT_SAME(predictor_arithmetic);
  KVSIFT_SAME(predictor_plain);
  KVSIFT_SAME(verify_blocks);
  KVSIFT_SAME(balance_form);
  KVSIFT_SAME(balance_halvings);
  KVSIFT_SAME(balance_group);
  KVSIFT_SAME(balance_gamma);
  KVSIFT_SAME(balance_temperature);
  KVSIFT_SAME(balance_value_offset);
  KVSIFT_SAME(balance_streaming);
  KVSIFT_SAME(balance_guard);
  KVSIFT_SAME(coreset_tokens);
#undef KVSIFT_SAME
  return found;
}

}  // namespace kvsift

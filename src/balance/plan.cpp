#include "balance/plan.h"

namespace kvsift {

namespace {

bool finite(float x) { return x - x == 0.0f; }

// At least zero and finite.
kvsift_status amount(const kvsift_balance_config &c, float value, const char *name) {
  if (finite(value) && value >= 0.0f) return KVSIFT_OK;
  return fail(c.error, finite(value) ? KVSIFT_INVALID_ARGUMENT : KVSIFT_NOT_FINITE, name, " is ",
              value, ", must be finite and at least 0");
}

kvsift_status check_sizes(const kvsift_balance_config &c) {
  if (c.head_dim < 1 || c.head_dim > KVSIFT_MAX_HEAD_DIM) {
    return fail(c.error, KVSIFT_INVALID_ARGUMENT, "head_dim is ", c.head_dim, ", must be 1 to ",
                KVSIFT_MAX_HEAD_DIM);
  }
  if (c.form > KVSIFT_BALANCE_CUBLAS) {
    return fail(c.error, KVSIFT_INVALID_ARGUMENT, "form is ", c.form,
                ", must be a KVSIFT_BALANCE_ form");
  }
  if (c.halvings < 1 || c.halvings > KVSIFT_BALANCE_MAX_HALVINGS) {
    return fail(c.error, KVSIFT_INVALID_ARGUMENT, "halvings is ", c.halvings, ", must be 1 to ",
                KVSIFT_BALANCE_MAX_HALVINGS);
  }
  if (c.group_tokens != 0 &&
      (c.group_tokens < KVSIFT_BALANCE_MIN_GROUP || c.group_tokens > KVSIFT_BALANCE_MAX_GROUP)) {
    return fail(c.error, KVSIFT_INVALID_ARGUMENT, "group_tokens is ", c.group_tokens, ", must be ",
                KVSIFT_BALANCE_MIN_GROUP, " to ", KVSIFT_BALANCE_MAX_GROUP, ", or 0 for one group");
  }
  if (c.weights > KVSIFT_BALANCE_PUBLISHED) {
    return fail(c.error, KVSIFT_INVALID_ARGUMENT, "weights is ", c.weights, ", must be 0 or 1");
  }
  if (c.form == KVSIFT_BALANCE_GRADED && c.uniforms != nullptr) {
    return fail(c.error, KVSIFT_UNSUPPORTED, "uniforms cannot be given to the graded form");
  }
  if (c.guard > 1)
    return fail(c.error, KVSIFT_INVALID_ARGUMENT, "guard is ", c.guard, ", must be 0 or 1");
  return KVSIFT_OK;
}

kvsift_status check_amounts(const kvsift_balance_config &c) {
  kvsift_status status = amount(c, c.gamma, "gamma");
  if (status == KVSIFT_OK) status = amount(c, c.temperature, "temperature");
  if (status == KVSIFT_OK) status = amount(c, c.value_offset, "value_offset");
  if (status == KVSIFT_OK) status = amount(c, c.softmax_scale, "softmax_scale");
  if (status != KVSIFT_OK) return status;
  if (!(c.failure_probability > 0.0f && c.failure_probability < 1.0f)) {
    return fail(c.error, KVSIFT_INVALID_ARGUMENT, "failure_probability is ", c.failure_probability,
                ", must be above 0 and below 1");
  }
  return KVSIFT_OK;
}

}  // namespace

void balance_defaults(std::uint32_t form, kvsift_balance_config *config) {
  kvsift_balance_config c{};
  c.struct_size = sizeof c;
  c.form = form;
  c.halvings = 2;
  c.group_tokens = 256;
  c.gamma = form == KVSIFT_BALANCE_THEORY || form == KVSIFT_BALANCE_UNIFORM ? 0.0f : 4.0f;
  c.temperature = form == KVSIFT_BALANCE_THEORY     ? 1.0f
                  : form == KVSIFT_BALANCE_RELATIVE ? 0.1f
                                                    : 0.3f;
  // The published 1e-8 on top is lost in float32's rounding of the sum for all but the smallest
  // values.
  c.value_offset = 0.025f + 1e-8f;
  c.failure_probability = 0.01f;
  c.guard_margin = 25;
  c.seed = 42;
  *config = c;
}

kvsift_status settle_balance(const kvsift_balance_config &config, BalancePlan *plan) {
  kvsift_status status = check_sizes(config);
  if (status == KVSIFT_OK) status = check_amounts(config);
  if (status != KVSIFT_OK) return status;
  plan->c = config;
  const auto dim = static_cast<float>(config.head_dim);
  plan->scale = config.softmax_scale != 0.0f ? config.softmax_scale : 1.0f / __builtin_sqrtf(dim);
  return KVSIFT_OK;
}

}  // namespace kvsift

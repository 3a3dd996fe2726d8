// Life cycle of a policy.
#include <cstring>
#include <new>

#include "check.h"
#include "methods/method.h"
#include "policy/coreset.h"
#include "policy/layout.h"

using namespace kvsift;

static kvsift_status check_config(const kvsift_policy_config *config) {
  if (config == nullptr) return KVSIFT_INVALID_ARGUMENT;
  if (config->struct_size < sizeof(kvsift_policy_config)) return KVSIFT_INVALID_STRUCT_SIZE;
  return KVSIFT_OK;
}

extern "C" kvsift_status kvsift_policy_config_init(kvsift_policy_config *config, kvsift_method method) {
  if (kvsift_status s = check_config(config)) return s;
  const Method *table = method_of(method);
  if (table == nullptr) return KVSIFT_INVALID_ARGUMENT;
  const std::uint32_t size = config->struct_size;
  std::memset(config, 0, sizeof *config);
  config->struct_size = size;
  config->method = method;
  config->block_tokens = 16;
  config->page_tokens = 16;
  config->moments_type = KVSIFT_I8;
  config->window = 32;
  config->pool_kernel = 5;
  config->pooling = KVSIFT_POOL_AVG;
  config->calibration_period = 5;
  config->calibration_dense = 1;
  config->history_rows = 64;
  config->predict_period = 1;
  config->balance_halvings = 2;
  config->balance_group = 256;
  config->balance_gamma = 4.0f;
  config->balance_temperature = 0.3f;
  config->balance_value_offset = 0.025f;
  config->coreset_tokens = 256;
  table->defaults(config);
  return KVSIFT_OK;
}

extern "C" kvsift_status kvsift_policy_config_snapkv(kvsift_policy_config *config, uint32_t profile) {
  static const struct {
    std::uint32_t window, kernel, pooling;
  } kProfiles[] = {{32, 5, KVSIFT_POOL_AVG}, {32, 7, KVSIFT_POOL_MAX}, {64, 5, KVSIFT_POOL_AVG}, {8, 7, KVSIFT_POOL_MAX}};
  if (kvsift_status s = check_config(config)) return s;
  if (profile >= sizeof kProfiles / sizeof kProfiles[0]) {
    return fail(config->error, KVSIFT_INVALID_ARGUMENT, "profile is ", profile, ", no KVSIFT_SNAPKV_ value");
  }
  config->window = kProfiles[profile].window;
  config->pool_kernel = kProfiles[profile].kernel;
  config->pooling = kProfiles[profile].pooling;
  return KVSIFT_OK;
}

extern "C" kvsift_status kvsift_policy_arena_size(const kvsift_policy_config *config, uint64_t *bytes,
                                                  uint64_t *alignment) {
  if (kvsift_status s = check_config(config)) return s;
  if (bytes == nullptr) return fail(config->error, KVSIFT_INVALID_ARGUMENT, "bytes is null");
  Settings settings;
  PolicyPlaces places{};
  Layout layout;
  if (kvsift_status s = settle(*config, &settings)) return s;
  if (kvsift_status s = lay_out(settings, &layout, &places, config->error)) return s;
  *bytes = layout.used();
  if (alignment != nullptr) *alignment = kAlign;
  return KVSIFT_OK;
}

// Everything after the policy's own fields goes back to zero, then to what methods start from.
static void clear(Policy *policy) {
  const std::uint64_t own = align_up(sizeof(Policy));
  std::memset(reinterpret_cast<char *>(policy) + own, 0, policy->bytes - own);
  policy->tokens = policy->decode_steps = policy->prompt_end = policy->first_prompt = 0;
  policy->selected_for.store(0, std::memory_order_relaxed);
  const Method &method = *method_of(policy->s.c.method);
  if (method.reset == nullptr) return;
  for (std::uint32_t layer = policy->s.c.dense_layers; layer < policy->s.c.layers; ++layer) {
    for (std::uint32_t head = 0; head < policy->s.c.kv_heads; ++head) method.reset(head_of(policy, layer, head));
  }
}

extern "C" kvsift_status kvsift_policy_create(const kvsift_policy_config *config, void *arena, uint64_t bytes,
                                              kvsift_policy **policy) {
  if (policy != nullptr) *policy = nullptr;
  if (kvsift_status s = check_config(config)) return s;
  if (policy == nullptr) return fail(config->error, KVSIFT_INVALID_ARGUMENT, "policy is null");
  if (arena == nullptr) return fail(config->error, KVSIFT_INVALID_ARGUMENT, "arena is null");
  const auto address = reinterpret_cast<std::uintptr_t>(arena);
  if (address % kAlign != 0) {
    return fail(config->error, KVSIFT_MISALIGNED, "arena is ", static_cast<std::uint64_t>(address % kAlign),
                " bytes past a multiple of ", kAlign);
  }
  Settings settings;
  PolicyPlaces places{};
  Layout layout(bytes);
  if (kvsift_status s = settle(*config, &settings)) return s;
  if (kvsift_status s = lay_out(settings, &layout, &places, config->error)) return s;
  auto *made = new (arena) Policy();
  static_cast<PolicyPlaces &>(*made) = places;
  made->level = best_level();
  made->multiplies_int8 = machine_multiplies_int8(made->level);
  clear(made);
  made->alive = kAlive;
  *policy = reinterpret_cast<kvsift_policy *>(made);
  return KVSIFT_OK;
}

extern "C" kvsift_status kvsift_policy_reset(kvsift_policy *policy) {
  if (!is_policy(policy)) return KVSIFT_INVALID_ARGUMENT;
  clear(policy_of(policy));
  policy_of(policy)->error = kvsift_error{};
  return KVSIFT_OK;
}

extern "C" kvsift_status kvsift_policy_destroy(kvsift_policy *policy) {
  if (!is_policy(policy)) return KVSIFT_INVALID_ARGUMENT;
  policy_of(policy)->alive = 0;
  return KVSIFT_OK;
}

extern "C" kvsift_status kvsift_policy_get_info(const kvsift_policy *policy, kvsift_policy_info *info) {
  if (!is_policy(policy)) return KVSIFT_INVALID_ARGUMENT;
  const Policy *p = policy_of(policy);
  if (info == nullptr) return fail_in(p, KVSIFT_INVALID_ARGUMENT, "info is null");
  if (info->struct_size < sizeof *info) {
    return fail_in(p, KVSIFT_INVALID_STRUCT_SIZE, "info->struct_size is ", info->struct_size);
  }
  const Method &method = *method_of(p->s.c.method);
  info->needs = p->s.needs;
  info->prefill_rows = method.prefill_rows == nullptr ? 0 : method.prefill_rows(p->s);
  if (is_graded(p->s) && info->prefill_rows < p->s.c.window) info->prefill_rows = p->s.c.window;
  info->evicts = method.evicts;
  info->tokens = p->tokens;
  info->decode_steps = p->decode_steps;
  info->max_ranges = p->s.list_ranges;
  info->max_blocks = p->s.list_blocks;
  info->arena_bytes = p->bytes;
  return KVSIFT_OK;
}

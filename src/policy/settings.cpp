#include "policy/settings.h"

#include <cmath>

#include "methods/method.h"
#include "policy/coreset.h"
#include "policy/dense.h"

namespace kvsift {
namespace {

using Config = kvsift_policy_config;

struct Bound {
  const char *name;
  std::uint32_t value, least, most;
};

kvsift_status check_bounds(const Bound *bounds, unsigned count, kvsift_error *error) {
  for (unsigned i = 0; i < count; ++i) {
    const Bound &b = bounds[i];
    if (b.value >= b.least && b.value <= b.most) continue;
    return fail(error, KVSIFT_INVALID_ARGUMENT, "config.", b.name, " is ", b.value, ", not in ", b.least, " .. ",
                b.most);
  }
  return KVSIFT_OK;
}

kvsift_status check_geometry(const Config &c) {
  const Bound bounds[] = {
      {"layers", c.layers, 1, KVSIFT_MAX_LAYERS},
      {"kv_heads", c.kv_heads, 1, 4096},
      {"query_heads", c.query_heads, 1, 65536},
      {"head_dim", c.head_dim, 1, KVSIFT_MAX_HEAD_DIM},
      {"max_tokens", c.max_tokens, 1, KVSIFT_MAX_TOKENS},
      {"block_tokens", c.block_tokens, 1, 256},
      {"page_tokens", c.page_tokens, 1, 256},
      {"grouping", c.grouping, 0, KVSIFT_GROUP_MAX},
      {"tail", c.tail, 0, KVSIFT_TAIL_BALANCE},
      {"rollback_tokens", c.rollback_tokens, 0, 4096},
      {"verify_blocks", c.verify_blocks, 0, 4096},
      {"dense_layers", c.dense_layers, 0, KVSIFT_MAX_LAYERS},
      {"sink_tokens", c.sink_tokens, 0, KVSIFT_MAX_TOKENS},
      {"local_tokens", c.local_tokens, 0, KVSIFT_MAX_TOKENS},
      {"budget_tokens", c.budget_tokens, 0, KVSIFT_MAX_TOKENS},
      {"calibration_dense", c.calibration_dense, 0, 1},
      {"tensor_attention", c.tensor_attention, 0, 1},
      {"balance_form", c.balance_form, 0, KVSIFT_BALANCE_GRADED},
  };
  if (kvsift_status s = check_bounds(bounds, sizeof bounds / sizeof bounds[0], c.error)) return s;
  if (c.query_heads % c.kv_heads != 0 || c.query_heads / c.kv_heads > KVSIFT_MAX_GROUP) {
    return fail(c.error, KVSIFT_INVALID_ARGUMENT, "config.query_heads is ", c.query_heads, ", not a multiple of kv_heads ",
                c.kv_heads, " by at most ", KVSIFT_MAX_GROUP);
  }
  if (c.moments_type != KVSIFT_F16 && c.moments_type != KVSIFT_I8) {
    return fail(c.error, KVSIFT_INVALID_ARGUMENT, "config.moments_type is ", c.moments_type,
                ", neither KVSIFT_F16 nor KVSIFT_I8");
  }
  return KVSIFT_OK;
}

kvsift_status check_real(const char *name, float value, float least, float most, kvsift_error *error) {
  if (!std::isfinite(value)) return fail(error, KVSIFT_NOT_FINITE, "config.", name, " is ", value);
  if (value >= least && value <= most) return KVSIFT_OK;
  return fail(error, KVSIFT_INVALID_ARGUMENT, "config.", name, " is ", value, ", not in ", least, " .. ", most);
}

kvsift_status check_budget(const Config &c) {
  if (kvsift_status s = check_real("budget_share", c.budget_share, 0, 1, c.error)) return s;
  if (kvsift_status s = check_real("target_mass", c.target_mass, 0, 1, c.error)) return s;
  if (kvsift_status s = check_real("softmax_scale", c.softmax_scale, 0, 1e6f, c.error)) return s;
  if (kvsift_status s = check_real("recent_share", c.recent_share, 0, 1, c.error)) return s;
  if (kvsift_status s = check_real("ema_decay", c.ema_decay, 0, 1, c.error)) return s;
  if (c.method == KVSIFT_METHOD_FULL) return KVSIFT_OK;
  // A share alone would leave the shortest contexts with less than the sinks and local tokens.
  const std::uint64_t fixed = std::uint64_t{c.sink_tokens} + c.local_tokens;
  if (c.budget_tokens < fixed || c.budget_tokens <= c.sink_tokens) {
    return fail(c.error, KVSIFT_INVALID_ARGUMENT, "config.budget_tokens is ", c.budget_tokens,
                ", less than sink_tokens ", c.sink_tokens, " plus local_tokens ", c.local_tokens, " or the newest token");
  }
  if (fixed == 0 && c.budget_tokens < c.block_tokens) {
    return fail(c.error, KVSIFT_INVALID_ARGUMENT, "config.budget_tokens is ", c.budget_tokens, ", less than one block of ",
                c.block_tokens);
  }
  return KVSIFT_OK;
}

// What the coreset goes by, under the names that it has here.
kvsift_status check_balance(const Config &c) {
  if (kvsift_status s = check_real("balance_gamma", c.balance_gamma, 0, 1e6f, c.error)) return s;
  if (kvsift_status s = check_real("balance_temperature", c.balance_temperature, 0, 1e6f, c.error)) return s;
  return check_real("balance_value_offset", c.balance_value_offset, 0, 1e6f, c.error);
}

// Before that, whatever a decode step's row adds is forgotten by the first step that leaves anything out.
std::uint32_t learning_begins(const Settings &s, const Method &method) {
  if (method.memory == nullptr) return 0;
  if (s.c.budget_share >= 1) return UINT32_MAX;
  const std::uint32_t dense = s.dense_tokens > s.c.budget_tokens ? s.dense_tokens : s.c.budget_tokens;
  const std::uint32_t memory = method.memory(s);
  return dense >= memory ? dense - memory + 1 : 0;
}

void derive(const Config &c, const Method &method, Settings *s) {
  s->c = c;
  s->c.error = nullptr;
  if (s->c.dense_layers > c.layers) s->c.dense_layers = c.layers;
  if (c.method == KVSIFT_METHOD_FULL) s->c.dense_layers = c.layers;
  s->group = c.query_heads / c.kv_heads;
  s->lists = c.grouping == KVSIFT_GROUP_QUERY_HEAD ? s->group : 1;
  s->dim16 = (c.head_dim + 15) / 16 * 16;
  s->max_blocks = blocks_of(c.max_tokens, c.block_tokens);
  s->max_pages = blocks_of(c.max_tokens, c.page_tokens);
  s->sparse_layers = c.layers - s->c.dense_layers;
  s->dense_tokens = dense_tokens_of(c);
  s->needs = method.needs;
  s->value_moments = c.tail == KVSIFT_TAIL_MOMENTS;
  s->page_moments = s->value_moments || c.method == KVSIFT_METHOD_PAGE_STATS || c.verify_blocks > 0;
  s->page_bounds = c.method == KVSIFT_METHOD_QUEST;
  if (s->page_moments || s->page_bounds) s->needs |= KVSIFT_NEEDS_KEYS;
  if (s->value_moments) s->needs |= KVSIFT_NEEDS_KEYS | KVSIFT_NEEDS_VALUES | KVSIFT_NEEDS_QUERY;
  if (c.verify_blocks > 0) s->needs |= KVSIFT_NEEDS_QUERY;
  if (has_coreset(*s)) s->needs |= KVSIFT_NEEDS_KEYS | KVSIFT_NEEDS_VALUES;
  s->scale = c.softmax_scale > 0 ? c.softmax_scale : 1.0f / std::sqrt(static_cast<float>(c.head_dim));
  const bool votes = c.method == KVSIFT_METHOD_SNAPKV || c.method == KVSIFT_METHOD_PYRAMIDKV;
  s->prompt_local = votes && c.window > c.local_tokens ? c.window : c.local_tokens;
  // PyramidKV's first layers have up to twice the mean.
  const std::uint64_t budget = std::uint64_t{c.method == KVSIFT_METHOD_PYRAMIDKV ? 2u : 1u} * budget_at(c, c.max_tokens);
  // The chosen blocks, late additions, and one more each for a ragged sink edge, local edge and newest block.
  const std::uint64_t most = budget / c.block_tokens + c.verify_blocks + 4;
  s->kept_blocks = static_cast<std::uint32_t>(most < s->max_blocks ? most : s->max_blocks);
  s->list_ranges = s->kept_blocks + 2;
  // Keeping methods keep every decoded token as well.
  s->list_blocks = method.keep != nullptr || method.exact_from != nullptr ? s->max_blocks : s->kept_blocks;
  s->learns_from = learning_begins(*s, method);
}

}  // namespace

const Method *method_of(kvsift_method method) {
  static const Method *const kMethods[KVSIFT_METHOD_COUNT] = {
      &kFull, &kStreaming, &kH2o, &kSnapKv, &kPyramidKv, &kQuest,
      &kPageStats, &kEma, &kUniform, &kAttentionPredictor, &kBalance};
  return method < KVSIFT_METHOD_COUNT ? kMethods[method] : nullptr;
}

kvsift_status settle(const Config &config, Settings *settings) {
  const Method *method = method_of(config.method);
  if (method == nullptr) {
    return fail(config.error, KVSIFT_INVALID_ARGUMENT, "config.method is ", config.method, ", no method has that number");
  }
  if (kvsift_status s = check_geometry(config)) return s;
  if (kvsift_status s = check_budget(config)) return s;
  if (kvsift_status s = check_balance(config)) return s;
  if (method->check != nullptr) {
    if (kvsift_status s = method->check(config, config.error)) return s;
  }
  if (config.verify_blocks > 0 && method->evicts) {
    return fail(config.error, KVSIFT_INVALID_ARGUMENT, "config.verify_blocks is ", config.verify_blocks, ", but what ",
                method->name, " leaves out is gone");
  }
  if (config.verify_blocks > 0 && config.block_tokens != config.page_tokens) {
    return fail(config.error, KVSIFT_INVALID_ARGUMENT, "config.verify_blocks needs block_tokens ", config.block_tokens,
                " equal to page_tokens ", config.page_tokens);
  }
  if (kvsift_status s = settle_coreset(config, &settings->coreset)) return s;
  derive(config, *method, settings);
  return KVSIFT_OK;
}

}  // namespace kvsift

#include "policy/coreset.h"

#include <cstring>

namespace kvsift {
namespace {

using Config = kvsift_policy_config;

kvsift_balance_config balance_of(const Config &c) {
  kvsift_balance_config b{};
  balance_defaults(KVSIFT_BALANCE_PRACTICAL, &b);
  b.head_dim = c.head_dim;
  b.halvings = 1;
  b.group_tokens = 0;
  b.gamma = c.balance_gamma;
  b.temperature = c.balance_temperature;
  b.value_offset = c.balance_value_offset;
  b.softmax_scale = c.softmax_scale;
  b.seed = c.seed;
  b.error = c.error;
  return b;
}

BalancePlan plan_of(const Settings &s, std::uint32_t layer) {
  kvsift_balance_config b = balance_of(s.c);
  b.layer = layer;
  b.error = nullptr;
  return BalancePlan{b, s.scale};
}

}  // namespace

kvsift_status settle_coreset(const Config &c, CoresetShape *shape) {
  *shape = CoresetShape{};
  const bool method = c.method == KVSIFT_METHOD_BALANCE;
  if (c.tail != KVSIFT_TAIL_BALANCE) {
    if (!method) return KVSIFT_OK;
    return fail(c.error, KVSIFT_INVALID_ARGUMENT, "config.tail is ", c.tail,
                ", method balance needs KVSIFT_TAIL_BALANCE");
  }
  BalancePlan plan;
  const kvsift_balance_config balance = balance_of(c);
  if (kvsift_status s = settle_balance(balance, &plan)) return s;
  const CoresetWish wish{c.head_dim, c.local_tokens, c.sink_tokens, c.max_tokens,
                         c.rollback_tokens};
  if (!method) {
    *shape = coreset_shape_of_size(wish, c.coreset_tokens);
    if (shape->group > 0) return KVSIFT_OK;
    return fail(c.error, KVSIFT_INVALID_ARGUMENT, "config.coreset_tokens is ", c.coreset_tokens,
                ", too few for max_tokens ", c.max_tokens);
  }
  if (c.balance_guard != 0) {
    return fail(c.error, KVSIFT_UNSUPPORTED,
                "config.balance_guard: the guard is in kvsift_balance_compress only");
  }
  if (c.balance_halvings < 1 || c.balance_halvings > KVSIFT_BALANCE_MAX_HALVINGS) {
    return fail(c.error, KVSIFT_INVALID_ARGUMENT, "config.balance_halvings is ", c.balance_halvings,
                ", must be 1 to ", KVSIFT_BALANCE_MAX_HALVINGS);
  }
  const std::uint32_t group = c.balance_group;
  if (group < KVSIFT_BALANCE_MIN_GROUP || group > KVSIFT_BALANCE_MAX_GROUP) {
    return fail(c.error, KVSIFT_INVALID_ARGUMENT, "config.balance_group is ", group, ", must be ",
                KVSIFT_BALANCE_MIN_GROUP, " to ", KVSIFT_BALANCE_MAX_GROUP);
  }
  *shape = coreset_shape(wish, group, c.balance_halvings);
  return KVSIFT_OK;
}

bool has_coreset(const Settings &s) { return s.coreset.entries > 0; }

void lay_out_coreset(UnitLayout *unit, const Settings &s, UnitPlaces *p) {
  if (!has_coreset(s)) return;
  const std::uint64_t row_elements = std::uint64_t{s.coreset.rows} * s.coreset.dim;
  p->coreset_state = unit->lasting<CoresetState>(1, "coreset");
  p->coreset_tokens = unit->lasting<std::uint32_t>(s.coreset.entries, "coreset tokens");
  p->coreset_weights = unit->lasting<float>(s.coreset.entries, "coreset weights");
  p->coreset_keys = unit->lasting<F16>(row_elements, "coreset keys");
  p->coreset_values = unit->lasting<F16>(row_elements, "coreset values");
  p->coreset_backups =
      unit->lasting<char>(s.coreset.backups * coreset_backup_bytes(s.coreset), "coreset backups");
}

std::uint64_t coreset_scratch_bytes(const Settings &s) {
  if (!has_coreset(s)) return 0;
  Layout layout;
  lay_out_coreset_scratch(&layout, s.coreset, plan_of(s, 0));
  return layout.used();
}

Coreset coreset_of(const HeadState &head) {
  const UnitPlaces &p = head.places();
  return Coreset{&head.settings().coreset,
                 head.at<CoresetState>(p.coreset_state),
                 head.at<std::uint32_t>(p.coreset_tokens),
                 head.at<float>(p.coreset_weights),
                 head.at<F16>(p.coreset_keys),
                 head.at<F16>(p.coreset_values),
                 head.at<char>(p.coreset_backups)};
}

void observe_coreset(const HeadState &head, const HeadRows &keys, const HeadRows &values,
                     std::uint32_t tokens) {
  const Settings &s = head.settings();
  const Coreset coreset = coreset_of(head);
  if (coreset.state->closed != 0) return;
  Policy *policy = head.policy;
  char *scratch = policy->coreset_scratch.in(policy) + head.kv_head * policy->coreset_scratch_bytes;
  const BalancePlan plan = plan_of(s, head.layer);
  CoresetBuilder builder(coreset, plan, head.k(), head.kv_head, scratch);
  builder.push(keys, values, head.unit->keys_seen - tokens, tokens);
}

namespace {

// What to scale the weights beyond level 0 by, so that with one list's exact tokens they count
// every token once.
double share_left(const HeadState &head, const Coreset &coreset, std::uint32_t list) {
  Policy *policy = head.policy;
  const std::uint64_t index = std::uint64_t{head.kv_head} * policy->s.lists + list;
  const kvsift_range *range = policy->ranges.in(policy) + index * policy->s.list_ranges;
  const kvsift_range *end = range + policy->range_counts.in(policy)[index];
  const std::uint32_t first = coreset.shape->sinks, last = coreset.exact_from();
  double exact = 0.0, weight = 0.0;
  for (const kvsift_range *r = range; r != end; ++r) {
    const std::uint32_t from = r->begin > first ? r->begin : first,
                        to = r->end < last ? r->end : last;
    if (from < to) exact += to - from;
  }
  const std::uint32_t halved = coreset.size() - coreset.state->counts[0];
  for (std::uint32_t i = 0; i < halved; ++i) {
    while (range != end && range->end <= coreset.tokens[i]) ++range;
    if (range == end || coreset.tokens[i] < range->begin)
      weight += static_cast<double>(coreset.weights[i]);
  }
  const double left = static_cast<double>(last - first) - exact;
  return weight > 0.0 && left > 0.0 ? left / weight : 1.0;
}

}  // namespace

void close_coreset(const HeadState &head) {
  const kvsift_policy_config &c = head.settings().c;
  if (c.method == KVSIFT_METHOD_BALANCE && c.balance_streaming == 0)
    coreset_of(head).state->closed = 1;
}

void select_coreset(const HeadState &head) {
  Policy *policy = head.policy;
  const Settings &s = policy->s;
  const Coreset coreset = coreset_of(head);
  const std::uint32_t size = coreset.size(), halved = size - coreset.state->counts[0];
  const std::uint64_t at = std::uint64_t{head.kv_head} * s.coreset.entries;
  float *weights = policy->coreset_weights.in(policy) + at;
  std::memcpy(policy->coreset.in(policy) + at, coreset.tokens, size * sizeof(std::uint32_t));
  std::memcpy(weights, coreset.weights, size * sizeof(float));
  policy->coreset_counts.in(policy)[head.kv_head] = size;
  if (s.c.method == KVSIFT_METHOD_BALANCE) return;
  double factor = 0.0;
  for (std::uint32_t list = 0; list < s.lists; ++list)
    factor += share_left(head, coreset, list) / s.lists;
  for (std::uint32_t i = 0; i < halved; ++i)
    weights[i] = static_cast<float>(static_cast<double>(weights[i]) * factor);
}

bool can_truncate_coreset(const HeadState &head, std::uint32_t tokens) {
  return !has_coreset(head.settings()) || coreset_of(head).can_truncate(tokens);
}

void truncate_coreset(const HeadState &head, std::uint32_t tokens) {
  if (has_coreset(head.settings())) coreset_of(head).truncate(tokens);
}

namespace {

// Counts that the buffers can hold; the sum is left in `size`.
bool counts_sane(const CoresetShape &shape, const CoresetState &state, std::uint32_t seen,
                 std::uint64_t *size) {
  *size = 0;
  for (std::uint32_t level = 0; level <= shape.levels; ++level) {
    const std::uint32_t most = level == 0              ? shape.group + shape.lag
                               : level == shape.levels ? shape.entries - shape.rows
                                                       : shape.group / 2;
    if (state.counts[level] > most) return false;
    *size += state.counts[level];
  }
  return state.closed <= 1 && state.reduced <= seen && state.reduced % shape.group == 0 &&
         *size <= shape.entries;
}

bool entries_sane(const char *tokens, const char *weights, std::uint64_t count,
                  std::uint32_t seen) {
  std::uint32_t before = 0;
  for (std::uint64_t i = 0; i < count; ++i) {
    std::uint32_t token;
    float weight;
    std::memcpy(&token, tokens + i * sizeof token, sizeof token);
    std::memcpy(&weight, weights + i * sizeof weight, sizeof weight);
    if (token >= seen || (i > 0 && token <= before) || !(weight >= 0.0f) || weight - weight != 0.0f)
      return false;
    before = token;
  }
  return true;
}

}  // namespace

bool coreset_sane(const CoresetShape &shape, const CoresetImage &image, std::uint32_t seen) {
  CoresetState now;
  std::uint64_t size;
  std::memcpy(&now, image.state, sizeof now);
  if (!counts_sane(shape, now, seen, &size) ||
      !entries_sane(image.tokens, image.weights, size, seen))
    return false;
  for (std::uint32_t i = 0; i < shape.backups; ++i) {
    const char *at = image.backups + i * coreset_backup_bytes(shape);
    CoresetState then;
    std::memcpy(&then, at, sizeof then);
    if (!counts_sane(shape, then, seen, &size) ||
        then.counts[shape.levels] > now.counts[shape.levels])
      return false;
    at += sizeof then;
    size -= then.counts[shape.levels];
    if (size > shape.rows || !entries_sane(at, at + shape.rows * sizeof(std::uint32_t), size, seen))
      return false;
  }
  return true;
}

}  // namespace kvsift

#include "policy/coreset.h"

#include <cstring>

namespace kvsift {
namespace {

using Config = kvsift_policy_config;

kvsift_balance_config balance_of(const Config &c) {
  kvsift_balance_config b{};
  balance_defaults(c.balance_form, &b);
  b.head_dim = c.head_dim;
  b.halvings = 1;
  b.group_tokens = 0;
  b.gamma = c.balance_gamma;
  b.temperature = c.balance_temperature;
  b.value_offset = c.balance_value_offset;
  b.softmax_scale = c.softmax_scale;
  b.guard = c.balance_guard;
  b.seed = c.seed;
  b.error = c.error;
  return b;
}

kvsift_status check_form(const Config &c) {
  if (c.balance_form == KVSIFT_BALANCE_PERMUTATION) {
    return fail(c.error, KVSIFT_UNSUPPORTED,
                "config.balance_form: a policy has no permutation form; UNIFORM is its control");
  }
  if (c.balance_guard > 1) {
    return fail(c.error, KVSIFT_INVALID_ARGUMENT, "config.balance_guard is ", c.balance_guard,
                ", must be 0 or 1");
  }
  if (c.balance_form == KVSIFT_BALANCE_GRADED && c.window == 0) {
    return fail(c.error, KVSIFT_INVALID_ARGUMENT,
                "config.window is 0, the graded form goes by the prompt's last queries");
  }
  return KVSIFT_OK;
}

bool closes(const Config &c) {
  return c.method == KVSIFT_METHOD_BALANCE && c.balance_streaming == 0;
}

}  // namespace

BalancePlan coreset_plan(const Settings &s, std::uint32_t layer) {
  kvsift_balance_config b = balance_of(s.c);
  b.layer = layer;
  b.error = nullptr;
  return BalancePlan{b, s.scale};
}

kvsift_status settle_coreset(const Config &c, CoresetShape *shape) {
  *shape = CoresetShape{};
  const bool method = c.method == KVSIFT_METHOD_BALANCE;
  if (c.tail != KVSIFT_TAIL_BALANCE) {
    if (!method) return KVSIFT_OK;
    return fail(c.error, KVSIFT_INVALID_ARGUMENT, "config.tail is ", c.tail,
                ", method balance needs KVSIFT_TAIL_BALANCE");
  }
  if (kvsift_status s = check_form(c)) return s;
  BalancePlan plan;
  const kvsift_balance_config balance = balance_of(c);
  if (kvsift_status s = settle_balance(balance, &plan)) return s;
  const CoresetWish wish{c.head_dim,        c.local_tokens,       c.sink_tokens, c.max_tokens,
                         c.rollback_tokens, c.balance_guard != 0, closes(c)};
  if (!method) {
    *shape = coreset_shape_of_size(wish, c.coreset_tokens);
    if (shape->group > 0) return KVSIFT_OK;
    return fail(c.error, KVSIFT_INVALID_ARGUMENT, "config.coreset_tokens is ", c.coreset_tokens,
                ", too few for max_tokens ", c.max_tokens);
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

bool is_graded(const Settings &s) {
  return has_coreset(s) && s.c.balance_form == KVSIFT_BALANCE_GRADED;
}

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
  p->coreset_before_end =
      unit->lasting<char>(s.coreset.closes ? coreset_end_bytes(s.coreset) : 0, "coreset's end");
  p->coreset_guards = unit->lasting<std::uint32_t>(s.coreset.guards, "guarded tokens");
}

std::uint64_t coreset_scratch_bytes(const Settings &s) {
  if (!has_coreset(s)) return 0;
  Layout layout;
  lay_out_coreset_scratch(&layout, s.coreset, coreset_plan(s, 0));
  const std::uint64_t graded = is_graded(s) ? grade_scratch_bytes(s) : 0;
  return layout.used() > graded ? layout.used() : graded;
}

Coreset coreset_of(const HeadState &head) {
  const UnitPlaces &p = head.places();
  return Coreset{&head.settings().coreset,
                 head.at<CoresetState>(p.coreset_state),
                 head.at<std::uint32_t>(p.coreset_tokens),
                 head.at<float>(p.coreset_weights),
                 head.at<F16>(p.coreset_keys),
                 head.at<F16>(p.coreset_values),
                 head.at<char>(p.coreset_backups),
                 head.at<char>(p.coreset_before_end),
                 head.at<std::uint32_t>(p.coreset_guards)};
}

char *coreset_scratch_of(const HeadState &head) {
  Policy *policy = head.policy;
  return policy->coreset_scratch.in(policy) + head.kv_head * policy->coreset_scratch_bytes;
}

void observe_coreset(const HeadState &head, const HeadRows &keys, const HeadRows &values,
                     std::uint32_t tokens) {
  const Settings &s = head.settings();
  const Coreset coreset = coreset_of(head);
  if (coreset.state->closed != 0) return;
  const BalancePlan plan = coreset_plan(s, head.layer);
  CoresetBuilder builder(coreset, plan, head.k(), head.kv_head, coreset_scratch_of(head));
  builder.push(keys, values, head.unit->keys_seen - tokens, tokens);
}

namespace {

// Tokens of weight 1 stand for themselves, whatever was halved around them.
bool stands_for_more(float weight) { return weight != 1.0f; }

// What to scale weights other than 1 by, so that with one list's exact tokens they count every
// token once.
double share_left(const HeadState &head, const Coreset &coreset, std::uint32_t list) {
  Policy *policy = head.policy;
  const std::uint64_t index = std::uint64_t{head.kv_head} * policy->s.lists + list;
  const kvsift_range *ranges = policy->ranges.in(policy) + index * policy->s.list_ranges;
  const kvsift_range *end = ranges + policy->range_counts.in(policy)[index], *range = ranges;
  const std::uint32_t first = coreset.shape->sinks, last = coreset.exact_from();
  double left = last - first, weight = 0.0;
  for (const kvsift_range *r = ranges; r != end; ++r) {
    const std::uint32_t from = r->begin > first ? r->begin : first,
                        to = r->end < last ? r->end : last;
    if (from < to) left -= to - from;
  }
  const std::uint32_t halved = coreset.size() - coreset.state->counts[0];
  for (std::uint32_t i = 0; i < halved; ++i) {
    while (range != end && range->end <= coreset.tokens[i]) ++range;
    if (range != end && coreset.tokens[i] >= range->begin) continue;
    if (stands_for_more(coreset.weights[i])) weight += static_cast<double>(coreset.weights[i]);
    else left -= 1.0;
  }
  range = ranges;
  for (std::uint32_t i = 0; i < coreset.state->guards; ++i) {
    while (range != end && range->end <= coreset.guards[i]) ++range;
    if (range == end || coreset.guards[i] < range->begin) left -= 1.0;
  }
  return weight > 0.0 && left > 0.0 ? left / weight : 1.0;
}

double mean_share_left(const HeadState &head, const Coreset &coreset) {
  const Settings &s = head.settings();
  if (s.c.method == KVSIFT_METHOD_BALANCE) return 1.0;
  double sum = 0.0;
  for (std::uint32_t list = 0; list < s.lists; ++list)
    sum += share_left(head, coreset, list) / s.lists;
  return sum;
}

}  // namespace

void close_coreset(const HeadState &head) {
  const Coreset coreset = coreset_of(head);
  if (!closes(head.settings().c) || coreset.state->closed != 0) return;
  const BalancePlan plan = coreset_plan(head.settings(), head.layer);
  CoresetBuilder builder(coreset, plan, head.k(), head.kv_head, coreset_scratch_of(head));
  builder.close();
}

void select_coreset(const HeadState &head) {
  Policy *policy = head.policy;
  const Settings &s = policy->s;
  const Coreset coreset = coreset_of(head);
  const double factor = mean_share_left(head, coreset);
  const std::uint64_t at = std::uint64_t{head.kv_head} * s.coreset.most();
  std::uint32_t *tokens = policy->coreset.in(policy) + at;
  float *weights = policy->coreset_weights.in(policy) + at;
  std::uint32_t guard = 0, count = 0;
  const auto put = [&](std::uint32_t token, float weight) {
    tokens[count] = token;
    weights[count++] = weight;
  };
  for (std::uint32_t i = 0; i < coreset.size(); ++i) {
    for (; guard < coreset.state->guards && coreset.guards[guard] < coreset.tokens[i]; ++guard)
      put(coreset.guards[guard], 1.0f);
    const float weight = coreset.weights[i];
    put(coreset.tokens[i], stands_for_more(weight)
                               ? static_cast<float>(static_cast<double>(weight) * factor)
                               : weight);
  }
  for (; guard < coreset.state->guards; ++guard) put(coreset.guards[guard], 1.0f);
  policy->coreset_counts.in(policy)[head.kv_head] = count;
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
  return state.closed <= 1 && state.reduced <= seen && state.base <= state.reduced &&
         (state.reduced - state.base) % shape.group == 0 && state.guards <= state.guarded &&
         state.guarded <= shape.guard_most(state.reduced) && *size <= shape.entries;
}

bool tokens_sane(const char *tokens, std::uint64_t count, std::uint32_t seen) {
  std::uint32_t before = 0;
  for (std::uint64_t i = 0; i < count; ++i) {
    std::uint32_t token;
    std::memcpy(&token, tokens + i * sizeof token, sizeof token);
    if (token >= seen || (i > 0 && token <= before)) return false;
    before = token;
  }
  return true;
}

bool weights_sane(const char *weights, std::uint64_t count) {
  for (std::uint64_t i = 0; i < count; ++i) {
    float weight;
    std::memcpy(&weight, weights + i * sizeof weight, sizeof weight);
    if (!(weight >= 0.0f) || weight - weight != 0.0f) return false;
  }
  return true;
}

// A backup that a state may go back to.
bool backup_sane(const CoresetShape &shape, const CoresetState &now, const char *at,
                 std::uint32_t seen) {
  CoresetState then;
  std::uint64_t size;
  std::memcpy(&then, at, sizeof then);
  if (!counts_sane(shape, then, seen, &size) || then.guards > now.guards ||
      then.counts[shape.levels] > now.counts[shape.levels])
    return false;
  at += sizeof then;
  size -= then.counts[shape.levels];
  return size <= shape.rows && tokens_sane(at, size, seen) &&
         weights_sane(at + shape.rows * sizeof(std::uint32_t), size);
}

}  // namespace

bool coreset_sane(const CoresetShape &shape, const CoresetImage &image, std::uint32_t seen) {
  CoresetState now;
  std::uint64_t size;
  std::memcpy(&now, image.state, sizeof now);
  if (!counts_sane(shape, now, seen, &size) || !tokens_sane(image.tokens, size, seen) ||
      !weights_sane(image.weights, size) || !tokens_sane(image.guards, now.guards, seen))
    return false;
  for (std::uint32_t i = 0; i < shape.backups; ++i)
    if (!backup_sane(shape, now, image.backups + i * coreset_backup_bytes(shape), seen))
      return false;
  return now.closed == 0 || (shape.closes && backup_sane(shape, now, image.before_end, seen));
}

}  // namespace kvsift

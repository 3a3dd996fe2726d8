#include "balance/coreset.h"

#include <cstring>

namespace kvsift {

CoresetShape coreset_shape(const CoresetWish &wish, std::uint32_t group, std::uint32_t levels) {
  CoresetShape s{wish.dim, group, levels, wish.lag, wish.sinks, 0, 0, 0, 0, wish.closes};
  const std::uint32_t top = wish.max_tokens >> levels;
  s.rows = group + wish.lag + levels * (group / 2);
  if (wish.guard) s.guards = top;
  s.entries = top + group + s.rows + s.guards;
  if (wish.rollback > 0 && group > 0) s.backups = wish.rollback / group + 1;
  return s;
}

CoresetShape coreset_shape_of_size(const CoresetWish &wish, std::uint32_t size) {
  constexpr std::uint32_t kLeastGroup = 16, kMostGroup = 256;
  if (wish.guard) size = size / 3 * 2;
  std::uint32_t levels = 1;
  while (levels < kCoresetLevels && wish.max_tokens >> levels > size / 2) ++levels;
  std::uint32_t group = size / (levels + 2) / 2 * 2;
  if (group > kMostGroup) group = kMostGroup;
  if (group < kLeastGroup) group = 0;
  return coreset_shape(wish, group, levels);
}

CoresetScratch lay_out_coreset_scratch(Layout *layout, const CoresetShape &shape,
                                       const BalancePlan &plan) {
  CoresetScratch p{};
  p.guarded = layout->take<std::int8_t>(shape.group, "coreset guard");
  p.order = layout->take<std::uint32_t>(shape.group, "coreset order");
  p.weight = layout->take<float>(shape.group, "coreset weights");
  p.spread = layout->take<float>(shape.group, "coreset weights by place");
  p.wide = layout->take<float>(padded_dim(shape.dim), "coreset row");
  p.halver = lay_out_halver(layout, plan, shape.group, shape.group);
  return p;
}

std::uint32_t Coreset::size() const {
  std::uint32_t sum = 0;
  for (std::uint32_t level = 0; level <= shape->levels; ++level) sum += state->counts[level];
  return sum;
}

CoresetBuilder::CoresetBuilder(const Coreset &coreset, const BalancePlan &plan,
                               const Kernels &kernels, std::uint32_t head, void *scratch)
    : c_(coreset),
      plan_(plan),
      kernels_(kernels),
      head_(head),
      base_(static_cast<char *>(scratch)) {
  Layout layout;
  places_ = lay_out_coreset_scratch(&layout, *coreset.shape, plan);
}

void CoresetBuilder::copy_row(const Rows &from, F16 *to) {
  float *wide = places_.wide.in(base_);
  kernels_.array.widen_rows(from, 1, c_.shape->dim, wide);
  kernels_.array.to_half(wide, to, c_.shape->dim);
}

void CoresetBuilder::append(std::uint32_t token, const Rows &key, const Rows &value) {
  const std::uint32_t at = c_.size(), row = at - c_.state->counts[c_.shape->levels];
  c_.tokens[at] = token;
  c_.weights[at] = 1.0f;
  copy_row(key, c_.keys + std::uint64_t{row} * c_.shape->dim);
  copy_row(value, c_.values + std::uint64_t{row} * c_.shape->dim);
  ++c_.state->counts[0];
}

void CoresetBuilder::push(const HeadRows &keys, const HeadRows &values, std::uint32_t first,
                          std::uint32_t count) {
  const std::uint32_t group = c_.shape->group;
  for (std::uint32_t i = 0; i < count; ++i) {
    if (first + i < c_.shape->sinks) continue;
    std::uint32_t one = 1;
    append(first + i, keys.stretch(i, &one), values.stretch(i, &one));
    if (c_.state->counts[0] < group + c_.shape->lag) continue;
    c_.back_up();
    std::uint32_t begin = c_.size() - c_.state->counts[0];
    c_.state->reduced += group;
    guard(begin, group);
    reduce(0, begin, group);
    for (std::uint32_t level = 1; level < c_.shape->levels && c_.state->counts[level] > group / 2;
         ++level) {
      begin = c_.size() - c_.state->counts[0] - c_.state->counts[level];
      reduce(level, begin, c_.state->counts[level]);
    }
  }
}

void CoresetBuilder::guard(std::uint32_t begin, std::uint32_t count) {
  CoresetState &state = *c_.state;
  const std::uint32_t top = state.counts[c_.shape->levels];
  std::int8_t *guarded = places_.guarded.in(base_);
  std::memset(guarded, 0, count);
  if (c_.shape->guards == 0) return;
  float *product = places_.weight.in(base_);
  const kvsift_view keys = rows_view(c_.keys);
  const GuardKeys rows{HeadRows{&keys, nullptr, 0, 0}, c_.shape->dim, nullptr, begin - top, count};
  guard_products(kernels_, rows, count, product);
  const std::uint32_t most = c_.shape->guard_most(state.reduced) - state.guarded;
  state.guarded += mark_unlike(product, count, plan_.c.guard_margin, most,
                               places_.order.in(base_), guarded);
  for (std::uint32_t i = 0; i < count; ++i)
    if (guarded[i] != 0) c_.guards[state.guards++] = c_.tokens[begin + i];
}

kvsift_view CoresetBuilder::rows_view(const F16 *rows) const {
  kvsift_view view{};
  view.type = KVSIFT_F16;
  view.token_stride = std::uint64_t{c_.shape->dim} * sizeof(F16);
  view.data = rows;
  return view;
}

// Entry `from` to place `to`, with its row where it keeps one.
void CoresetBuilder::move(std::uint32_t to, std::uint32_t from, bool row) {
  c_.tokens[to] = c_.tokens[from];
  c_.weights[to] = c_.weights[from];
  if (!row) return;
  const std::uint64_t dim = c_.shape->dim, top = c_.state->counts[c_.shape->levels];
  std::memmove(c_.keys + (to - top) * dim, c_.keys + (from - top) * dim, dim * sizeof(F16));
  std::memmove(c_.values + (to - top) * dim, c_.values + (from - top) * dim, dim * sizeof(F16));
}

std::uint32_t CoresetBuilder::list_rows(std::uint32_t begin, std::uint32_t count,
                                        std::uint32_t listed, const std::int8_t *guarded) {
  std::uint32_t *order = places_.order.in(base_), open = 0, to = 0;
  float *weight = places_.weight.in(base_);
  const std::uint32_t top = c_.state->counts[c_.shape->levels];
  for (std::uint32_t i = 0; i < count; ++i) open += guarded == nullptr || guarded[i] == 0;
  std::memmove(order + open, order, listed * sizeof *order);
  std::memmove(weight + open, weight, listed * sizeof *weight);
  for (std::uint32_t i = 0; i < count; ++i) {
    if (guarded != nullptr && guarded[i] != 0) continue;
    order[to] = begin + i - top;
    weight[to++] = c_.weights[begin + i];
  }
  return open + listed;
}

// Halves the scratch lists; weights keep their sum.
std::uint32_t CoresetBuilder::halve_list(std::uint32_t count, std::uint32_t level) {
  float *weight = places_.weight.in(base_), before = 0.0f, after = 0.0f;
  const auto unit = static_cast<float>(1u << level);
  for (std::uint32_t i = 0; i < count; ++i) before += weight[i] /= unit;
  const kvsift_view keys = rows_view(c_.keys), values = rows_view(c_.values);
  const BalanceSource source{HeadRows{&keys, nullptr, 0, 0}, HeadRows{&values, nullptr, 0, 0},
                             c_.tokens + c_.state->counts[c_.shape->levels], head_, true};
  Halver halver(plan_, kernels_, places_.halver, base_, &counters_);
  const std::uint32_t kept = halver.halve(source, places_.order.in(base_), weight, count,
                                          c_.shape->group, level, nullptr);
  for (std::uint32_t i = 0; i < kept; ++i) after += weight[i];
  for (std::uint32_t i = 0; i < kept; ++i) weight[i] *= unit * (before / after);
  return kept;
}

// Leaves weights by place in `spread`, zero for what goes; returns how many stay.
std::uint32_t CoresetBuilder::halve(std::uint32_t begin, std::uint32_t count, std::uint32_t level) {
  const std::uint32_t *order = places_.order.in(base_);
  const float *weight = places_.weight.in(base_);
  float *spread = places_.spread.in(base_);
  const std::uint32_t top = c_.state->counts[c_.shape->levels];
  const std::int8_t *guarded = level == 0 ? places_.guarded.in(base_) : nullptr;
  const std::uint32_t kept = halve_list(list_rows(begin, count, 0, guarded), level);
  for (std::uint32_t i = 0; i < count; ++i) spread[i] = 0.0f;
  for (std::uint32_t i = 0; i < kept; ++i) spread[order[i] + top - begin] = weight[i];
  return kept;
}

void CoresetBuilder::reduce(std::uint32_t level, std::uint32_t begin, std::uint32_t count) {
  const std::uint32_t kept = halve(begin, count, level), end = c_.size();
  const float *spread = places_.spread.in(base_);
  const bool to_top = level + 1 == c_.shape->levels;
  std::uint32_t to = begin;
  for (std::uint32_t i = 0; i < count; ++i) {
    if (spread[i] == 0.0f) continue;
    move(to, begin + i, !to_top);
    c_.weights[to++] = spread[i];
  }
  c_.state->counts[level] -= count;
  c_.state->counts[level + 1] += kept;
  if (!to_top) {
    for (std::uint32_t from = begin + count; from < end; ++from) move(to++, from, true);
    return;
  }
  // The top has no rows: those behind it move to the front.
  const std::uint64_t dim = c_.shape->dim;
  const std::uint32_t behind = end - begin - count;
  std::memmove(c_.tokens + to, c_.tokens + begin + count, behind * sizeof(std::uint32_t));
  std::memmove(c_.weights + to, c_.weights + begin + count, behind * sizeof(float));
  std::memmove(c_.keys, c_.keys + count * dim, behind * dim * sizeof(F16));
  std::memmove(c_.values, c_.values + count * dim, behind * dim * sizeof(F16));
}

}  // namespace kvsift

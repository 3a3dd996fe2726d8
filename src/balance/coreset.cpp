#include "balance/coreset.h"

#include <cstring>

namespace kvsift {

CoresetShape coreset_shape(const CoresetWish &wish, std::uint32_t group, std::uint32_t levels) {
  CoresetShape s{wish.dim, group, levels, wish.lag, wish.sinks, 0, 0, 0};
  s.rows = group + wish.lag + levels * (group / 2);
  s.entries = (wish.max_tokens >> levels) + group + s.rows;
  if (wish.rollback > 0 && group > 0) s.backups = wish.rollback / group + 1;
  return s;
}

CoresetShape coreset_shape_of_size(const CoresetWish &wish, std::uint32_t size) {
  constexpr std::uint32_t kLeastGroup = 16, kMostGroup = 256;
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

// Tokens halved out of level 0 by the time there are `length`.
std::uint32_t Coreset::reduced_at(std::uint32_t length) const {
  const std::uint32_t before = shape->sinks + shape->lag;
  return length < before ? 0 : (length - before) / shape->group * shape->group;
}

bool Coreset::can_truncate(std::uint32_t length) const {
  const std::uint32_t then = reduced_at(length);
  if (then >= state->reduced) return true;
  if (shape->backups == 0) return false;
  CoresetState kept;
  std::memcpy(&kept, backup_of(then), sizeof kept);
  // After an earlier truncation the slot may be empty, or hold a state of later.
  return kept.counts[0] > 0 && kept.reduced == then &&
         (state->reduced - then) / shape->group <= shape->backups;
}

void Coreset::truncate(std::uint32_t length) {
  if (length < end()) state->closed = 0;
  const std::uint32_t then = reduced_at(length);
  if (then < state->reduced) {
    const char *from = backup_of(then);
    std::memcpy(state, from, sizeof *state);
    from += sizeof *state;
    const std::uint32_t top = state->counts[shape->levels], rows = size() - top;
    const std::uint64_t row_bytes = std::uint64_t{shape->dim} * sizeof(F16);
    std::memcpy(tokens + top, from, rows * sizeof *tokens);
    std::memcpy(weights + top, from + shape->rows * sizeof *tokens, rows * sizeof *weights);
    from += shape->rows * (sizeof *tokens + sizeof *weights);
    std::memcpy(keys, from, rows * row_bytes);
    std::memcpy(values, from + shape->rows * row_bytes, rows * row_bytes);
  }
  const std::uint32_t from = exact_from(), left = length > from ? length - from : 0;
  if (state->counts[0] > left) state->counts[0] = left;
  forget_after(length);
}

// Backups that hold tokens which are gone will be written anew before they are needed.
void Coreset::forget_after(std::uint32_t length) const {
  for (std::uint32_t i = 0; i < shape->backups; ++i) {
    CoresetState kept;
    char *at = backups + i * coreset_backup_bytes(*shape);
    std::memcpy(&kept, at, sizeof kept);
    if (shape->sinks + kept.reduced + kept.counts[0] > length) std::memset(at, 0, sizeof kept);
  }
}

std::uint64_t coreset_backup_bytes(const CoresetShape &shape) {
  const std::uint64_t entry =
      sizeof(std::uint32_t) + sizeof(float) + std::uint64_t{shape.dim} * 2 * sizeof(F16);
  return align_up(sizeof(CoresetState) + shape.rows * entry);
}

char *Coreset::backup_of(std::uint32_t reduced) const {
  return backups + reduced / shape->group % shape->backups * coreset_backup_bytes(*shape);
}

void Coreset::back_up() const {
  if (shape->backups == 0) return;
  char *to = backup_of(state->reduced);
  const std::uint32_t top = state->counts[shape->levels], rows = size() - top;
  const std::uint64_t row_bytes = std::uint64_t{shape->dim} * sizeof(F16);
  std::memcpy(to, state, sizeof *state);
  to += sizeof *state;
  std::memcpy(to, tokens + top, rows * sizeof *tokens);
  std::memcpy(to + shape->rows * sizeof *tokens, weights + top, rows * sizeof *weights);
  to += shape->rows * (sizeof *tokens + sizeof *weights);
  std::memcpy(to, keys, rows * row_bytes);
  std::memcpy(to + shape->rows * row_bytes, values, rows * row_bytes);
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
    reduce(0, begin, group);
    for (std::uint32_t level = 1; level < c_.shape->levels && c_.state->counts[level] > group / 2;
         ++level) {
      begin = c_.size() - c_.state->counts[0] - c_.state->counts[level];
      reduce(level, begin, c_.state->counts[level]);
    }
  }
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

// Leaves weights by place in `spread`, zero for what goes; returns how many stay.
std::uint32_t CoresetBuilder::halve(std::uint32_t begin, std::uint32_t count, std::uint32_t level) {
  std::uint32_t *order = places_.order.in(base_);
  float *weight = places_.weight.in(base_), *spread = places_.spread.in(base_), before = 0.0f,
        after = 0.0f;
  const std::uint32_t top = c_.state->counts[c_.shape->levels];
  const auto unit = static_cast<float>(1u << level);
  for (std::uint32_t i = 0; i < count; ++i) {
    order[i] = begin + i - top;
    weight[i] = c_.weights[begin + i] / unit;
    before += weight[i];
    spread[i] = 0.0f;
  }
  kvsift_view keys{}, values{};
  keys.type = values.type = KVSIFT_F16;
  keys.token_stride = values.token_stride = std::uint64_t{c_.shape->dim} * sizeof(F16);
  keys.data = c_.keys;
  values.data = c_.values;
  const BalanceSource source{HeadRows{&keys, nullptr, 0, 0}, HeadRows{&values, nullptr, 0, 0},
                             c_.tokens + top, head_, true};
  Halver halver(plan_, kernels_, places_.halver, base_, &counters_);
  const std::uint32_t kept =
      halver.halve(source, order, weight, count, c_.shape->group, level, nullptr);
  for (std::uint32_t i = 0; i < kept; ++i) after += weight[i];
  for (std::uint32_t i = 0; i < kept; ++i)
    spread[order[i] + top - begin] = weight[i] * unit * (before / after);
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

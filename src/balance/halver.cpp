#include "balance/halver.h"

#include "core/philox.h"
#include "kernels/one.h"

namespace kvsift {

namespace {

// c of the theorem, for a group of `count` tokens.
float theorem_c(const BalancePlan &plan, std::uint32_t count) {
  return 30.0f * log1(static_cast<float>(count) / plan.c.failure_probability);
}

float largest(const Kernels &kernels, const float *square_norms, std::uint32_t count) {
  return kernels.array.max(square_norms, count);
}

}  // namespace

HalverPlaces lay_out_halver(Layout *layout, const BalancePlan &plan, std::uint32_t tokens,
                            std::uint32_t group) {
  HalverPlaces p{};
  const std::uint64_t padded = padded_dim(group);
  p.signs = layout->take<std::int8_t>(tokens, "signs");
  p.uniforms = layout->take<float>(padded, "uniforms");
  p.group_signs = layout->take<float>(padded, "group signs");
  if (!reads_rows(plan)) return p;
  p.rows = layout->take<BalanceRow>(group, "rows");
  p.sums = layout->take<float>(padded, "sums");
  p.square_norms = layout->take<float>(padded, "square norms");
  p.centre = layout->take<float>(padded_dim(plan.c.head_dim), "centre");
  p.keys = layout->take<float>(panel_floats(group, plan.c.head_dim), "key panels");
  p.values = layout->take<float>(panel_floats(group, plan.c.head_dim), "value panels");
  return p;
}

std::uint32_t Halver::halve(const BalanceSource &source, std::uint32_t *index, float *weight,
                            std::uint32_t count, std::uint32_t group, std::uint32_t draw,
                            const float *uniforms) {
  if (count < 2) return count;
  std::int8_t *signs = places_.signs.in(base_);
  for (std::uint32_t first = 0; first < count; first += group) {
    const std::uint32_t size = count - first < group ? count - first : group;
    const float *given = uniforms == nullptr ? nullptr : uniforms + first;
    sign_group(source, Group{index + first, weight + first, size, group}, draw, given,
               signs + first);
    ++counters_->groups;
  }
  counters_->tokens += count;
  if (plan_.c.form == KVSIFT_BALANCE_THEORY)
    return keep_smaller(signs, index, weight, count, group);
  return keep_half(signs, index, weight, count);
}

void Halver::sign_group(const BalanceSource &source, const Group &group, std::uint32_t draw,
                        const float *uniforms, std::int8_t *signs) {
  float *drawn = places_.uniforms.in(base_), *group_signs = places_.group_signs.in(base_);
  if (uniforms == nullptr) {
    for (std::uint32_t i = 0; i < group.count; ++i) {
      const std::uint32_t token = source.token(group.index[i]);
      drawn[i] =
          uniform_of(philox_at(plan_.c.seed, plan_.c.layer, source.head, token, draw).word[0]);
    }
    uniforms = drawn;
  }
  if (reads_rows(plan_)) {
    walk_group(source, group, uniforms);
    for (std::uint32_t i = 0; i < group.count; ++i) signs[i] = group_signs[i] > 0.0f ? 1 : -1;
    return;
  }
  signs[0] = 1;
  for (std::uint32_t i = 1; i < group.count; ++i) signs[i] = uniforms[i] < 0.5f ? 1 : -1;
}

void Halver::fill_rows(const HeadRows &head_rows, const Group &group, bool weighted) {
  BalanceRow *rows = places_.rows.in(base_);
  for (std::uint32_t i = 0; i < group.count; ++i) {
    std::uint32_t one = 1;
    const Rows row = head_rows.stretch(group.index[i], &one);
    rows[i] = BalanceRow{row.data, row.scale(0) * (weighted ? group.weight[i] : 1.0f)};
  }
}

// Panels, and the kernel's constants.
void Halver::pack(const BalanceSource &source, const Group &group, BalanceWalk *walk) {
  const float temperature = plan_.c.temperature * plan_.scale;
  float *centre = places_.centre.in(base_), *norms = places_.square_norms.in(base_);
  BalanceRows rows{places_.rows.in(base_), group.count, source.keys.view->type, plan_.c.head_dim};
  fill_rows(source.keys, group, false);
  // A last, shorter group is centred as if zeros filled it up, as published.
  kernels_.balance.mean(rows, 1.0f / static_cast<float>(group.slots), centre);
  kernels_.balance.pack(rows, centre, places_.keys.in(base_), norms);
  walk->keys = places_.keys.in(base_);
  walk->key_scale = temperature;
  walk->value_offset = 1.0f;
  const bool relative = in_units_of_r(plan_);
  if (relative) walk->shift = temperature * largest(kernels_, norms, group.count);
  if (!source.values_count) return;

  fill_rows(source.values, group, true);
  rows.type = source.values.view->type;
  kernels_.balance.pack(rows, nullptr, places_.values.in(base_), norms);
  walk->values = places_.values.in(base_);
  walk->value_scale = 1.0f;
  walk->value_offset = plan_.c.value_offset;
  if (!relative) return;
  const float most = largest(kernels_, norms, group.count) + plan_.c.value_offset;
  const float inverse = most > 0x1p-100f ? 1.0f / most : 0.0f;
  walk->value_scale = inverse;
  walk->value_offset = plan_.c.value_offset * inverse;
}

void Halver::walk_group(const BalanceSource &source, const Group &group, const float *uniforms) {
  BalanceWalk walk{};
  pack(source, group, &walk);
  walk.count = group.count;
  walk.dim = plan_.c.head_dim;
  walk.gamma = plan_.c.gamma;
  walk.limit = __builtin_inff();
  // The published code fixes the first sign; so does the form that is built on it.
  walk.first_is_plus =
      plan_.c.form == KVSIFT_BALANCE_PRACTICAL || plan_.c.form == KVSIFT_BALANCE_GRADED;
  if (plan_.c.form == KVSIFT_BALANCE_THEORY) {
    walk.limit = theorem_c(plan_, group.count);
    if (walk.gamma == 0.0f)
      walk.gamma = 0.5f / walk.limit;
    else
      walk.limit = 0.5f / walk.gamma;
  }
  walk.uniforms = uniforms;
  walk.sums = places_.sums.in(base_);
  walk.signs = places_.group_signs.in(base_);
  kernels_.balance.walk(&walk);
  counters_->saturated += walk.saturated;
  counters_->failures += walk.failures;
}

}  // namespace kvsift

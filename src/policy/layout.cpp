#include "policy/layout.h"

#include "methods/method.h"
#include "policy/coreset.h"

namespace kvsift {
namespace {

void lay_out_pages(UnitLayout *unit, const Settings &s, UnitPlaces *p) {
  const std::uint64_t width = s.dim16;
  const bool scaled = s.c.moments_type == KVSIFT_I8;
  const std::uint64_t row = scaled ? width : 2 * width;
  if (s.page_moments) {
    p->key_mean = unit->growing<char>(1, row, Grows::kPages, "page key means");
    p->key_std = unit->growing<char>(1, row, Grows::kPages, "page key deviations");
    if (s.value_moments) p->value_mean = unit->growing<char>(1, row, Grows::kPages, "page value means");
  }
  if (s.page_moments && scaled) {
    p->key_mean_scale = unit->growing<float>(1, 1, Grows::kPages, "page key mean scales");
    p->key_std_scale = unit->growing<float>(1, 1, Grows::kPages, "page key deviation scales");
    if (s.value_moments) {
      p->value_mean_scale = unit->growing<float>(1, 1, Grows::kPages, "page value mean scales");
    }
  }
  if (s.page_bounds) {
    p->key_min = unit->growing<F16>(1, width, Grows::kPages, "page key minima");
    p->key_max = unit->growing<F16>(1, width, Grows::kPages, "page key maxima");
  }
}

kvsift_status lay_out_unit(const Settings &s, UnitPlaces *p, kvsift_error *error) {
  const Method &method = *method_of(s.c.method);
  UnitLayout unit(s);
  unit.lasting<Unit>(1, "unit");
  unit.begin_steps();
  p->open_page = unit.step<float>(s.page_moments ? 3 * s.dim16 : 0, "open page moments");
  p->open_bounds = unit.step<F16>(s.page_bounds ? 2 * s.dim16 : 0, "open page bounds");
  if (method.layout != nullptr) method.layout(&unit, s);
  p->step_begin = unit.step_begin();
  p->step_end = unit.step_end();
  lay_out_pages(&unit, s, p);
  lay_out_coreset(&unit, s, p);
  if (method.keep != nullptr) {
    p->kept = unit.lasting<std::uint32_t>(std::uint64_t{s.lists} * s.kept_blocks, "kept blocks");
    p->kept_counts = unit.lasting<std::uint32_t>(s.lists, "kept block counts");
  }
  const std::uint64_t step_bytes = p->step_end - p->step_begin;
  p->undo = unit.lasting<char>(s.c.rollback_tokens * step_bytes, "undo ring");
  p->undo_tokens = unit.lasting<std::uint32_t>(s.c.rollback_tokens, "undo ring index");
  p->bytes = unit.layout().used();
  for (std::uint32_t i = 0; i < UnitLayout::kMethodFields; ++i) p->method[i] = unit.method[i];
  p->field_count = unit.field_count();
  for (std::uint32_t i = 0; i < p->field_count; ++i) p->fields[i] = unit.fields()[i];
  return unit.layout().check(error);
}

}  // namespace

kvsift_status lay_out(const Settings &s, Layout *layout, PolicyPlaces *policy, kvsift_error *error) {
  policy->s = s;
  if (kvsift_status status = lay_out_unit(s, &policy->places, error)) return status;
  const std::uint64_t lists = std::uint64_t{s.lists} * s.c.kv_heads;
  layout->take<Policy>(1, "policy");
  policy->ranges = layout->take<kvsift_range>(lists * s.list_ranges, "selection ranges");
  policy->range_counts = layout->take<std::uint32_t>(lists, "selection range counts");
  policy->blocks = layout->take<std::uint32_t>(lists * s.list_blocks, "selection blocks");
  policy->block_counts = layout->take<std::uint32_t>(lists, "selection block counts");
  policy->missed = layout->take<std::uint32_t>(lists * s.c.verify_blocks, "missed blocks");
  policy->missed_counts = layout->take<std::uint32_t>(lists, "missed block counts");
  const std::uint64_t coreset = s.coreset.most();
  policy->coreset = layout->take<std::uint32_t>(s.c.kv_heads * coreset, "coreset tokens");
  policy->coreset_weights = layout->take<float>(s.c.kv_heads * coreset, "coreset weights");
  policy->coreset_counts = layout->take<std::uint32_t>(s.c.kv_heads, "coreset counts");
  policy->coreset_scratch_bytes = coreset_scratch_bytes(s);
  policy->coreset_scratch = layout->take<char>(policy->coreset_scratch_bytes * s.c.kv_heads, "coreset scratch");
  policy->marks = layout->take<HeadMarks>(s.c.kv_heads, "head marks");
  policy->units = layout->take_pieces(std::uint64_t{s.sparse_layers} * s.c.kv_heads, policy->places.bytes,
                                      "per-head state");
  policy->scratch_floats = (2 * s.group + 1) * scratch_stride(s) + std::uint64_t{s.group} * s.dim16;
  policy->scratch = layout->take<float>(policy->scratch_floats * s.c.kv_heads, "scratch");
  policy->bytes = layout->used();
  return layout->check(error);
}

}  // namespace kvsift

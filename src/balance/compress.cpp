#include "balance/compress.h"

#include <algorithm>

#include "balance/guard.h"
#include "core/philox.h"

namespace kvsift {

namespace {

// Draw numbers above the halvings'.
constexpr std::uint32_t kPermutationDraw = 1u << 16;

// Weights times what makes them sum to `total`.
void normalise(float *weight, std::uint32_t count, std::uint32_t total) {
  double sum = 0.0;
  for (std::uint32_t i = 0; i < count; ++i) sum += static_cast<double>(weight[i]);
  const double factor = static_cast<double>(total) / sum;
  for (std::uint32_t i = 0; i < count; ++i)
    weight[i] = static_cast<float>(static_cast<double>(weight[i]) * factor);
}

// The `keep` tokens with the smallest random numbers, to the front.
void permute(const CompressJob &job, std::uint32_t *index, float *weight, std::uint32_t count,
             std::uint32_t keep) {
  std::uint64_t *order = job.places.order.in(job.scratch);
  for (std::uint32_t i = 0; i < count; ++i) {
    const std::uint32_t token = job.source.token(index[i]);
    const Philox drawn =
        philox_at(job.plan.c.seed, job.plan.c.layer, job.source.head, token, kPermutationDraw);
    order[i] = std::uint64_t{drawn.word[0]} << 32 | index[i];
  }
  std::nth_element(order, order + keep, order + count);
  for (std::uint32_t i = 0; i < keep; ++i) {
    index[i] = static_cast<std::uint32_t>(order[i]);
    weight[i] = static_cast<float>(1u << job.plan.c.halvings);
  }
}

// Weight 1 for tokens unlike their group and their neighbours, zero for the others; returns how
// many are guarded. What halving will need is free until then.
std::uint32_t guard_needles(const CompressJob &job) {
  const std::uint32_t tokens = job.range.end - job.range.begin, group = group_of(job.plan, tokens);
  float *product = job.places.weight.in(job.scratch),
        *weight_of = job.places.weight_of.in(job.scratch);
  std::int8_t *marks = job.places.halver.signs.in(job.scratch);
  const GuardKeys keys{job.source.keys, job.plan.c.head_dim, nullptr, job.range.begin, tokens};
  constexpr std::uint32_t kMost = KVSIFT_BALANCE_MAX_GROUP;
  guard_products(job.kernels, keys, group < kMost ? group : kMost, product);
  std::uint32_t *order = job.places.index.in(job.scratch);
  const std::uint32_t guarded = mark_unlike(product, tokens, job.plan.c.guard_margin,
                                            job.guard_most, order, marks);
  for (std::uint32_t i = 0; i < tokens; ++i) weight_of[i] = static_cast<float>(marks[i]);
  return guarded;
}

}  // namespace

std::uint32_t halve_times(const CompressJob &job, std::uint32_t count, std::uint32_t halvings,
                          const float *uniforms) {
  std::uint32_t *index = job.places.index.in(job.scratch);
  float *weight = job.places.weight.in(job.scratch);
  const std::uint32_t group = group_of(job.plan, job.range.end - job.range.begin);
  Halver halver(job.plan, job.kernels, job.places.halver, job.scratch, job.counters);
  for (std::uint32_t t = 0; t < halvings; ++t) {
    const std::uint32_t before = count;
    count = halver.halve(job.source, index, weight, count, group, t, uniforms);
    if (uniforms != nullptr) uniforms += std::uint64_t{(before + group - 1) / group} * group;
  }
  return count;
}

void settle_weights(const CompressJob &job, std::uint32_t count, std::uint32_t total) {
  if (count == 0) return;
  const std::uint32_t *index = job.places.index.in(job.scratch);
  float *weight = job.places.weight.in(job.scratch),
        *weight_of = job.places.weight_of.in(job.scratch);
  if (job.plan.c.weights == KVSIFT_BALANCE_NORMALISED) normalise(weight, count, total);
  for (std::uint32_t i = 0; i < count; ++i) weight_of[index[i] - job.range.begin] = weight[i];
}

CompressPlaces lay_out_compress(Layout *layout, const BalancePlan &plan, std::uint32_t tokens) {
  CompressPlaces p{};
  p.index = layout->take<std::uint32_t>(tokens, "tokens");
  p.weight = layout->take<float>(tokens, "weights");
  p.weight_of = layout->take<float>(tokens, "weights by token");
  if (plan.c.form == KVSIFT_BALANCE_PERMUTATION)
    p.order = layout->take<std::uint64_t>(tokens, "order");
  if (plan.c.form == KVSIFT_BALANCE_GRADED) p.steps = layout->take<std::int16_t>(tokens, "grades");
  const std::uint32_t group = group_of(plan, tokens);
  p.halver = lay_out_halver(layout, plan, tokens, group < tokens ? group : tokens);
  return p;
}

std::uint32_t compress(const CompressJob &job) {
  std::uint32_t *index = job.places.index.in(job.scratch);
  float *weight = job.places.weight.in(job.scratch),
        *weight_of = job.places.weight_of.in(job.scratch);
  const std::uint32_t tokens = job.range.end - job.range.begin;
  std::uint32_t guarded = 0, rest = 0;
  for (std::uint32_t i = 0; i < tokens; ++i) weight_of[i] = 0.0f;
  if (job.plan.c.guard != 0) guarded = guard_needles(job);
  job.counters->guarded += guarded;
  if (job.plan.c.form == KVSIFT_BALANCE_GRADED) return guarded + compress_graded(job);
  for (std::uint32_t i = 0; i < tokens; ++i) {
    if (weight_of[i] != 0.0f) continue;
    index[rest] = job.range.begin + i;
    weight[rest++] = 1.0f;
  }
  std::uint32_t count = rest;
  if (job.plan.c.form == KVSIFT_BALANCE_PERMUTATION) {
    count >>= job.plan.c.halvings;
    if (count < 1 && rest > 0) count = 1;
    if (count > 0) permute(job, index, weight, rest, count);
  } else {
    count = halve_times(job, count, job.plan.c.halvings, job.plan.c.uniforms);
  }
  settle_weights(job, count, rest);
  return guarded + count;
}

}  // namespace kvsift

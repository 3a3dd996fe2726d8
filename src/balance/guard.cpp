// Tokens that point away from their group's mean key are what a needle looks like: sampling would
// lose them.
#include "balance/compress.h"

namespace kvsift {

namespace {

constexpr std::uint32_t kGuardGroup = KVSIFT_BALANCE_MAX_GROUP;

// unlike[i] = whether token i has a mean inner product of at most zero with the `count` keys from
// `first` on.
void find_unlike(const CompressJob &job, std::uint32_t first, std::uint32_t count, bool *unlike) {
  BalanceRow rows[kGuardGroup];
  float centre[KVSIFT_MAX_HEAD_DIM], products[kGuardGroup];
  for (std::uint32_t i = 0; i < count; ++i) {
    std::uint32_t one = 1;
    const Rows row = job.source.keys.stretch(first + i, &one);
    rows[i] = BalanceRow{row.data, row.scale(0)};
  }
  const std::uint32_t dim = job.plan.c.head_dim;
  const BalanceRows group{rows, count, job.source.keys.view->type, dim};
  job.kernels.balance.mean(group, 1.0f / static_cast<float>(count), centre);
  for (std::uint32_t i = 0; i < count;) {
    std::uint32_t stretch = count - i;
    const Rows keys = job.source.keys.stretch(first + i, &stretch);
    job.kernels.attention.dot_rows(centre, 1, keys, stretch, dim, 1.0f, products + i, stretch);
    i += stretch;
  }
  for (std::uint32_t i = 0; i < count; ++i) unlike[i] = !(products[i] > 0.0f);
}

}  // namespace

std::uint32_t guard_needles(const CompressJob &job) {
  float *weight_of = job.places.weight_of.in(job.scratch);
  const std::uint32_t tokens = job.range.end - job.range.begin;
  std::uint32_t size = group_of(job.plan, tokens), guarded = 0, filled = 0;
  if (size > kGuardGroup) size = kGuardGroup;
  bool unlike[kGuardGroup];
  for (std::uint32_t first = 0; first < tokens; first += size) {
    const std::uint32_t count = tokens - first < size ? tokens - first : size;
    find_unlike(job, job.range.begin + first, count, unlike);
    for (std::uint32_t i = first; i < first + count; ++i) {
      if (!unlike[i - first]) continue;
      const std::uint32_t margin = job.plan.c.guard_margin;
      const std::uint32_t begin = i > margin ? i - margin : 0;
      const std::uint32_t end = tokens - i > margin ? i + margin + 1 : tokens;
      // Everything before `filled` that a guard reaches has its weight already.
      for (std::uint32_t at = begin > filled ? begin : filled; at < end; ++at, ++guarded)
        weight_of[at] = 1.0f;
      if (end > filled) filled = end;
    }
  }
  return guarded;
}

}  // namespace kvsift

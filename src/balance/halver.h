// SoftmaxBalance (Algorithm 2 of BalanceKV): halves a weighted list of tokens, group by group.
#pragma once

#include "balance/plan.h"
#include "core/arena.h"
#include "core/view.h"
#include "kernels/kernels.h"

namespace kvsift {

struct BalanceCounters {
  std::uint64_t tokens, groups, failures, saturated, guarded, dropped;
};

// The tokens a halving looks at: rows of one head, by row number.
struct BalanceSource {
  HeadRows keys, values;
  const std::uint32_t
      *token_of;  // row to token, the key of its random numbers; null: they are the same
  std::uint32_t head;
  bool values_count;  // false: every value is the number 1 (the denominator)

  std::uint32_t token(std::uint32_t row) const { return token_of == nullptr ? row : token_of[row]; }
};

// Memory for halving groups of up to `group` tokens among up to `tokens`.
struct HalverPlaces {
  Offset<std::int8_t> signs;                                // [tokens]
  Offset<BalanceRow> rows;                                  // [group]
  Offset<float> uniforms, sums, group_signs, square_norms;  // [padded group]
  Offset<float> centre;                                     // [padded dim]
  Offset<float> keys, values;                               // panels
};
HalverPlaces lay_out_halver(Layout *layout, const BalancePlan &plan, std::uint32_t tokens,
                            std::uint32_t group);

class Halver {
 public:
  Halver(const BalancePlan &plan, const Kernels &kernels, const HalverPlaces &places, void *base,
         BalanceCounters *counters)
      : plan_(plan), kernels_(kernels), places_(places), base_(base), counters_(counters) {}

  // Halves index[0, count) with weights, in place, in groups of `group`; returns how many stay.
  // `draw` tells the random numbers of one halving from another's; `uniforms` ([groups][group])
  // stands in for them where not null.
  std::uint32_t halve(const BalanceSource &source, std::uint32_t *index, float *weight,
                      std::uint32_t count, std::uint32_t group, std::uint32_t draw,
                      const float *uniforms);

 private:
  struct Group {
    const std::uint32_t *index;
    const float *weight;
    std::uint32_t count;  // tokens it has
    std::uint32_t slots;  // and would have if it were full
  };
  void sign_group(const BalanceSource &source, const Group &group, std::uint32_t draw,
                  const float *uniforms, std::int8_t *signs);
  void pack(const BalanceSource &source, const Group &group, BalanceWalk *walk);
  void fill_rows(const HeadRows &rows, const Group &group, bool weighted);
  void walk_group(const BalanceSource &source, const Group &group, const float *uniforms);

  const BalancePlan &plan_;
  const Kernels &kernels_;
  const HalverPlaces &places_;
  void *base_;
  BalanceCounters *counters_;
};

// Exact halves: floor(count / 2) tokens stay, weights times 2 before the position where both signs
// have filled a half.
std::uint32_t keep_half(const std::int8_t *signs, std::uint32_t *index, float *weight,
                        std::uint32_t count);

// The smaller sign of each group, weights times 2.
std::uint32_t keep_smaller(const std::int8_t *signs, std::uint32_t *index, float *weight,
                           std::uint32_t count, std::uint32_t group);

}  // namespace kvsift

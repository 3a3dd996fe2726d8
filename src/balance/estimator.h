// Attention of one query over weighted rows, as plainly as it can be written.
#pragma once

#include "core/view.h"
#include "kernels/kernels.h"
#include "kvsift/balance.h"

namespace kvsift {

struct Estimator {
  const Kernels &kernels;
  HeadRows keys, values;
  std::uint32_t dim;
  float scale;
  const float *query;  // [padded dim]

  // sum over the numerator of w e^logit v, divided by the sum over the denominator of w e^logit
  void attend(const kvsift_weighted &numerator, const kvsift_weighted &denominator,
              float *out) const;

 private:
  float logit(std::uint32_t row) const;
  float most(const kvsift_weighted &set, float at_least) const;
};

}  // namespace kvsift

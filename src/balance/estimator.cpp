#include "balance/estimator.h"

#include "kernels/one.h"

namespace kvsift {

float Estimator::logit(std::uint32_t row) const {
  std::uint32_t one = 1;
  float result;
  kernels.attention.dot_rows(query, 1, keys.stretch(row, &one), 1, dim, scale, &result, 1);
  return result;
}

float Estimator::most(const kvsift_weighted &set, float at_least) const {
  for (std::uint32_t i = 0; i < set.count; ++i) {
    const float x = logit(set.index[i]);
    if (x > at_least) at_least = x;
  }
  return at_least;
}

void Estimator::attend(const kvsift_weighted &numerator, const kvsift_weighted &denominator,
                       float *out) const {
  const bool same = numerator.index == denominator.index &&
                    numerator.weight == denominator.weight && numerator.count == denominator.count;
  float max = most(denominator, -__builtin_inff());
  if (!same) max = most(numerator, max);
  float acc[KVSIFT_MAX_HEAD_DIM] = {};
  double sum = 0.0;
  for (std::uint32_t i = 0; i < numerator.count; ++i) {
    const std::uint32_t row = numerator.index[i];
    const float p = exp1(logit(row) - max) * numerator.weight[i];
    std::uint32_t one = 1;
    kernels.attention.weighted_sum(&p, 1, 1, values.stretch(row, &one), 1, dim, acc);
    if (same) sum += static_cast<double>(p);
  }
  for (std::uint32_t i = 0; i < denominator.count && !same; ++i)
    sum += static_cast<double>(exp1(logit(denominator.index[i]) - max) * denominator.weight[i]);
  for (std::uint32_t c = 0; c < dim; ++c)
    out[c] = sum == 0.0 ? 0.0f : acc[c] / static_cast<float>(sum);
}

}  // namespace kvsift

#include "policy/top_blocks.h"

#include "core/half.h"

namespace kvsift {

std::uint32_t score_key(float score) {
  const std::uint32_t bits = bits_of_float(score + 0.0f);
  return bits ^ ((bits >> 31) != 0 ? 0xffffffffu : 0x80000000u);
}

namespace {

float score_of(std::uint32_t key) { return float_of_bits(key ^ ((key >> 31) != 0 ? 0x80000000u : 0xffffffffu)); }

// A score that k scores lie above, or the k-th largest where its equals do not let there be one; by halving the stretch of
// keys that it lies in: fewer than k scores lie above `high`, and more than k above `low`, where that is not below them all.
float bound_of_largest(const Kernels &kernels, const float *scores, std::uint32_t count, std::uint32_t k) {
  std::uint32_t low = score_key(-__builtin_inff()) - 1, high = score_key(kernels.array.max(scores, count));
  while (high - low > 1) {
    const std::uint32_t middle = low + (high - low) / 2;
    const std::uint32_t above = kernels.array.count_above(scores, count, score_of(middle));
    if (above == k) return score_of(middle);
    if (above < k) {
      high = middle;
    } else {
      low = middle;
    }
  }
  return score_of(high);
}

}  // namespace

std::uint32_t top_blocks(const Kernels &kernels, const float *scores, std::uint32_t begin, std::uint32_t count,
                         std::uint32_t k, std::uint32_t *out) {
  if (k >= count) {
    for (std::uint32_t i = 0; i < count; ++i) out[i] = begin + i;
    return count;
  }
  if (k == 0) return 0;
  scores += begin;
  const float least = bound_of_largest(kernels, scores, count, k);
  std::uint32_t equals = k - kernels.array.count_above(scores, count, least), taken = 0;
  if (equals == 0) return kernels.array.places_above(scores, count, least, begin, out);
  // Of the scores equal to the least, the first ones.
  for (std::uint32_t i = 0; i < count && taken < k; ++i) {
    if (!(scores[i] >= least)) continue;
    if (scores[i] == least) {
      if (equals == 0) continue;
      --equals;
    }
    out[taken++] = begin + i;
  }
  return taken;
}

}  // namespace kvsift

// Which tokens stay once signs are drawn.
#include "balance/halver.h"

namespace kvsift {

std::uint32_t keep_half(const std::int8_t *signs, std::uint32_t *index, float *weight,
                        std::uint32_t count) {
  const std::uint32_t half = count / 2;
  std::uint32_t of_sign[2] = {0, 0}, turn = 0;
  for (std::uint32_t i = 0; i < count; ++i)
    if (++of_sign[signs[i] > 0] == half) turn = i;
  const std::int8_t filled = signs[turn];
  std::uint32_t kept = 0;
  for (std::uint32_t i = 0; i < count && kept < half; ++i) {
    if (i <= turn && signs[i] == filled) continue;
    index[kept] = index[i];
    weight[kept++] = i <= turn ? 2.0f * weight[i] : weight[i];
  }
  return kept;
}

std::uint32_t keep_smaller(const std::int8_t *signs, std::uint32_t *index, float *weight,
                           std::uint32_t count, std::uint32_t group) {
  std::uint32_t kept = 0;
  for (std::uint32_t first = 0; first < count; first += group) {
    const std::uint32_t size = count - first < group ? count - first : group;
    std::uint32_t plus = 0;
    for (std::uint32_t i = first; i < first + size; ++i) plus += signs[i] > 0;
    const bool keep_plus = plus <= size - plus;
    for (std::uint32_t i = first; i < first + size; ++i) {
      if ((signs[i] > 0) != keep_plus) continue;
      index[kept] = index[i];
      weight[kept++] = 2.0f * weight[i];
    }
  }
  // Signs that all agree would keep nothing; the first token then stands for the rest.
  if (kept == 0) {
    weight[0] *= 2.0f;
    kept = 1;
  }
  return kept;
}

}  // namespace kvsift

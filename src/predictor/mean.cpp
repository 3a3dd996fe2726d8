#include "predictor/mean.h"

#include <cstring>

namespace kvsift {
namespace {

constexpr std::uint32_t min_of(std::uint32_t a, std::uint32_t b) { return a < b ? a : b; }
constexpr std::uint32_t max_of(std::uint32_t a, std::uint32_t b) { return a > b ? a : b; }

// The sum over the window of a column that is empty in all rows.
float sum_of_empty(const PredictorHistory &h, std::uint32_t rows) {
  float sum = 0;
  for (std::uint32_t r = 0; r < rows; ++r) {
    const std::uint32_t missing = (r == 0 ? 1u : 0u) | (r + 1 == rows ? 2u : 0u);
    sum += h.state->empty.s[missing][0];
  }
  return sum;
}

constexpr std::uint32_t kGroupsAtOnce = 64;

// Which of `count` groups from `first` have anything in the window. The crop's edges do: their padding differs.
void find_filled(const PredictorHistory &h, std::uint64_t begin, std::uint32_t rows, std::uint32_t right,
                 std::uint32_t first, std::uint32_t count, std::uint8_t *any) {
  std::memset(any, 0, count);
  for (std::uint32_t r = 0; r < rows; ++r) {
    const std::uint8_t *filled = h.filled + (begin + r) % h.shape.rows * groups_of(h.shape.columns) + first;
    for (std::uint32_t g = 0; g < count; ++g) any[g] |= filled[g];
  }
  const std::uint32_t edges[] = {h.shape.left / kLanes, (right - 1) / kLanes};
  for (const std::uint32_t edge : edges) {
    if (edge >= first && edge < first + count) any[edge - first] = 1;
  }
}

// Asks the second-level cache for s in the groups of `any`: its lines lie all over, and the first level has too few places
// for what is on its way.
void ask_for_filled(const PredictorHistory &h, std::uint32_t first, std::uint32_t count, const std::uint8_t *any) {
  for (std::uint32_t g = 0; g < count; ++g) {
    if (any[g] == 0) continue;
    const float *group = h.s + std::uint64_t{first + g} * kLanes;
    for (std::uint32_t r = 0; r < h.shape.rows; ++r, group += h.shape.columns) __builtin_prefetch(group, 0, 2);
  }
}

}  // namespace

void mean_columns(const PredictorHistory &h, std::uint64_t begin, std::uint32_t rows, std::uint32_t right,
                  float *scores) {
  const float scale = 1.0f / static_cast<float>(rows), bias = h.weights->bias3;
  const float nothing = __builtin_fmaf(sum_of_empty(h, rows), scale, bias);
  MeanRows mean{h.s, h.shape.rows, static_cast<std::uint32_t>(begin % h.shape.rows), rows, h.shape.columns, 0, 0,
                scale, bias, nullptr};
  const std::uint32_t last = groups_of(right);
  for (std::uint32_t first = h.shape.left / kLanes; first < last; first += kGroupsAtOnce) {
    const std::uint32_t count = min_of(last - first, kGroupsAtOnce);
    std::uint8_t any[kGroupsAtOnce];
    find_filled(h, begin, rows, right, first, count, any);
    ask_for_filled(h, first, count, any);
    for (std::uint32_t g = 0, next = 0; g < count; g = next) {
      while (next < count && any[next] == any[g]) ++next;
      const std::uint32_t from = max_of((first + g) * kLanes, h.shape.left), to = min_of((first + next) * kLanes, right);
      if (any[g] != 0) {
        mean.left = from;
        mean.columns = to - from;
        mean.out = scores + from;
        h.kernels->mean_rows(mean);
      } else {
        for (std::uint32_t j = from; j < to; ++j) scores[j] = nothing;
      }
    }
  }
}

}  // namespace kvsift

#include "balance/guard.h"

#include <algorithm>

#include "kvsift/balance.h"

namespace kvsift {

namespace {

constexpr std::uint32_t kMostGroup = KVSIFT_BALANCE_MAX_GROUP;

std::uint32_t row_of(const GuardKeys &keys, std::uint32_t i) {
  return keys.index == nullptr ? keys.first + i : keys.index[i];
}

void find_products(const Kernels &kernels, const GuardKeys &keys, std::uint32_t first,
                   std::uint32_t count, float *product) {
  BalanceRow rows[kMostGroup];
  float centre[KVSIFT_MAX_HEAD_DIM];
  for (std::uint32_t i = 0; i < count; ++i) {
    std::uint32_t one = 1;
    const Rows row = keys.keys.stretch(row_of(keys, first + i), &one);
    rows[i] = BalanceRow{row.data, row.scale(0)};
  }
  const BalanceRows group{rows, count, keys.keys.view->type, keys.dim};
  kernels.balance.mean(group, 1.0f / static_cast<float>(count), centre);
  for (std::uint32_t i = 0; i < count; ++i) {
    std::uint32_t one = 1;
    const Rows row = keys.keys.stretch(row_of(keys, first + i), &one);
    float *to = product + first + i;
    kernels.attention.dot_rows(centre, 1, row, 1, keys.dim, 1.0f, to, 1);
    // Of keys so long that the product overflows; an order must have no NaN.
    if (*to - *to != 0.0f) *to = 0.0f;
  }
}

}  // namespace

void guard_products(const Kernels &kernels, const GuardKeys &keys, std::uint32_t group,
                    float *product) {
  for (std::uint32_t first = 0; first < keys.count; first += group) {
    const std::uint32_t left = keys.count - first;
    find_products(kernels, keys, first, left < group ? left : group, product);
  }
}

std::uint32_t mark_unlike(const float *product, std::uint32_t count, std::uint32_t margin,
                          std::uint32_t most, std::uint32_t *order, std::int8_t *marks) {
  std::uint32_t unlike = 0, marked = 0;
  for (std::uint32_t i = 0; i < count; ++i) {
    marks[i] = 0;
    if (!(product[i] > 0.0f)) order[unlike++] = i;
  }
  if (most < count) {
    std::sort(order, order + unlike, [product](std::uint32_t a, std::uint32_t b) {
      return product[a] < product[b] || (product[a] == product[b] && a < b);
    });
  }
  const auto mark = [&](std::uint32_t i) {
    if (marks[i] != 0 || marked == most) return;
    marks[i] = 1;
    ++marked;
  };
  for (std::uint32_t u = 0; u < unlike && marked < most; ++u) {
    const std::uint32_t i = order[u];
    for (std::uint32_t away = 0; away <= margin && away < count; ++away) {
      if (away <= i) mark(i - away);
      if (away < count - i) mark(i + away);
    }
  }
  return marked;
}

}  // namespace kvsift

// Needle guard: tokens that point away from their group's mean key are what a needle looks like;
// sampling would lose them.
#pragma once

#include "core/view.h"
#include "kernels/kernels.h"

namespace kvsift {

// The keys that are looked at: rows `index` of a head, or those from `first` on where it is null.
struct GuardKeys {
  HeadRows keys;
  std::uint32_t dim;
  const std::uint32_t *index;
  std::uint32_t first, count;
};

// product[i] = mean inner product of key i with the keys of its group of `group` (at most
// KVSIFT_BALANCE_MAX_GROUP) in a row.
void guard_products(const Kernels &kernels, const GuardKeys &keys, std::uint32_t group,
                    float *product);

// Marks with 1 the tokens whose product is at most zero, and `margin` tokens to each side; from the
// most unlike on, the nearest neighbours first, until `most` of `count` are marked. The others get
// 0. order: [count], scratch. Returns how many are marked.
std::uint32_t mark_unlike(const float *product, std::uint32_t count, std::uint32_t margin,
                          std::uint32_t most, std::uint32_t *order, std::int8_t *marks);

}  // namespace kvsift

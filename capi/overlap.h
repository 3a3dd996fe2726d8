// Memory that a caller hands over twice.
#pragma once

#include <cstdint>

namespace kvsift {

// Whether two stretches of memory share a byte.
inline bool overlap(const void *a, std::uint64_t a_bytes, const void *b, std::uint64_t b_bytes) {
  const auto x = reinterpret_cast<std::uintptr_t>(a), y = reinterpret_cast<std::uintptr_t>(b);
  return x < y + b_bytes && y < x + a_bytes;
}

}  // namespace kvsift

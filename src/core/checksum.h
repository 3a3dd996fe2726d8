// FNV-1a over 64-bit words: tells a damaged snapshot or weight file from a whole one; not a defence against forgery.
#pragma once

#include <cstdint>
#include <cstring>

namespace kvsift {

inline std::uint64_t checksum(const void *data, std::uint64_t bytes,
                              std::uint64_t hash = 0xcbf29ce484222325ull) {
  const auto *p = static_cast<const unsigned char *>(data);
  constexpr std::uint64_t kPrime = 0x100000001b3ull;
  for (; bytes >= 8; bytes -= 8, p += 8) {
    std::uint64_t word;
    std::memcpy(&word, p, 8);
    hash = (hash ^ word) * kPrime;
    hash ^= hash >> 32;
  }
  for (; bytes > 0; --bytes, ++p) hash = (hash ^ *p) * kPrime;
  return hash;
}

}  // namespace kvsift

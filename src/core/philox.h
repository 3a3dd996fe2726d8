// Philox4x32-10 (Salmon et al., SC 2011): random numbers that are a function of key and counter alone.
#pragma once

#include <cstdint>

namespace kvsift {

struct Philox {
  std::uint32_t word[4];
};

constexpr Philox philox(std::uint64_t key, const std::uint32_t counter[4]) {
  std::uint32_t c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3];
  auto k0 = static_cast<std::uint32_t>(key), k1 = static_cast<std::uint32_t>(key >> 32);
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t a = 0xD2511F53ull * c0, b = 0xCD9E8D57ull * c2;
    const auto a_high = static_cast<std::uint32_t>(a >> 32), b_high = static_cast<std::uint32_t>(b >> 32);
    c0 = b_high ^ c1 ^ k0;
    c2 = a_high ^ c3 ^ k1;
    c1 = static_cast<std::uint32_t>(b);
    c3 = static_cast<std::uint32_t>(a);
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return Philox{{c0, c1, c2, c3}};
}

// The draw that belongs to one token: the same whatever the threads, batches or backend.
constexpr Philox philox_at(std::uint64_t seed, std::uint32_t layer, std::uint32_t head, std::uint32_t token,
                        std::uint32_t draw) {
  const std::uint32_t counter[4] = {token, draw, head, layer};
  return philox(seed, counter);
}

// [0, 1) in steps of 2^-24.
constexpr float uniform_of(std::uint32_t word) {
  return static_cast<float>(word >> 8) * 5.9604644775390625e-8f;
}

}  // namespace kvsift

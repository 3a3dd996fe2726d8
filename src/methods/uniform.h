// Uniform sampling's random numbers.
#pragma once

#include <cstdint>

namespace kvsift {

constexpr std::uint32_t kUniformDraw = 0x756e69;  // keeps them apart from BalanceKV's

}  // namespace kvsift

// The stretch of columns of s that a block computes at a time.
#pragma once

#include <cstdint>

#include "predictor/conv_kernels.h"

namespace kvsift {

constexpr std::uint32_t kTile = 32;

}  // namespace kvsift

// How short a context must be to be attended to whole.
#pragma once

#include <cstdint>

#include "kvsift/kvsift.h"

namespace kvsift {

// What config.dense_tokens comes to: a cache length, 0 for none. Where it is left to the library: the length up to which
// a sparse step was slower than full attention when measured.
std::uint32_t dense_tokens_of(const kvsift_policy_config &config);

}  // namespace kvsift

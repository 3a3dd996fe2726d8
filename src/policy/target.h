// Budget by target: as few blocks as hold an estimated share of the attention mass.
#pragma once

#include "methods/method.h"
#include "policy/select.h"

namespace kvsift {

// Blocks of `crop` to take, at most `cap`, so that with sinks and newest tokens they hold target_mass of the scores'
// estimated mass. `room` holds max_blocks numbers.
std::uint32_t blocks_for_target(const HeadState &head, ScoreKind kind, const float *scores, std::uint32_t scored, Crop crop,
                                std::uint32_t cap, std::uint32_t *room);

}  // namespace kvsift

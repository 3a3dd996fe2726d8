// Scores of query heads as one row of their KV head, by many blocks: where the rows are too long for one to have them near.
#pragma once

#include "cuda/policy/choose.h"

namespace kvsift {

constexpr std::uint32_t kReduceThreads = 256, kReduceParts = 64;  // blocks of a KV head, at most

// Floats for each KV head: maxima that each block found of each row, then one over each row's sum.
constexpr std::uint64_t reduce_room(const Settings &s) { return std::uint64_t{kReduceParts + 1} * s.group; }

kvsift_status launch_reduce(const Launcher &to, const ChooseArgs &args, std::uint32_t heads);

}  // namespace kvsift

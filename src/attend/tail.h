// Pseudo-tokens for what a list leaves out.
#pragma once

#include "attend/attend.h"
#include "attend/running.h"

namespace kvsift {

// Merges the tail of one list (shared by the group of `head`) into `running`.
void add_tail(const Head &head, const kvsift_range *ranges, std::uint32_t count, const Tail &tail,
              ChunkWork *work, Running *running);

}  // namespace kvsift

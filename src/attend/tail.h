// Pseudo-tokens for what a list leaves out.
#pragma once

#include "attend/attend.h"
#include "attend/running.h"

namespace kvsift {

// Merges what stands for the tokens that the lists of a group leave out into `running`.
void add_tail(const Head &head, const Lists &lists, const Tail &tail, ChunkWork *work,
              Running *running);

}  // namespace kvsift

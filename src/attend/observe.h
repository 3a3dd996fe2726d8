// What a pass over a list leaves for kvsift_observe_attention: per block the largest logit and the
// share of the softmax.
#pragma once

#include <cstdint>

#include "attend/attend.h"
#include "attend/chunk.h"

namespace kvsift {

// While chunks come in, block_mass holds logarithms of block sums, of single tokens their weights in
// their chunk; finish_masses turns them into shares. `list` is attended to; `rows` are [group][kChunk].
void begin_observation(const Head &head, const Attended &result, const List &list);
// Before the chunk's logits are softened,
void observe_logits(const Head &head, const Attended &result, const Chunk &chunk,
                    const float *rows);
// and after, with the maxima they were taken relative to. Chunks are numbered from 0.
void observe_weights(const Head &head, const Attended &result, const Chunk &chunk,
                     std::uint32_t number, const float *rows, const float *max);
void finish_masses(const Head &head, const Attended &result, const List &list,
                   const float *log_sums);

}  // namespace kvsift

// What a pass over a list leaves for kvsift_observe_attention: per block the largest logit and the
// share of the softmax.
#pragma once

#include <cstdint>

#include "attend/running.h"

namespace kvsift {

// While chunks come in, block_mass holds logarithms of block sums; finish_masses turns them into
// shares.
class BlockObserver {
 public:
  BlockObserver(const Head &head, const Attended &result);

  // Before and after the chunk's logits are softened.
  void logits(const Chunk &chunk, ChunkWork *work);
  void weights(const Chunk &chunk, ChunkWork *work);

 private:
  std::uint32_t number_blocks(const Chunk &chunk);

  const Head &head_;
  const Attended &result_;
  // Blocks that the chunk touches, the number of each run's first, and their sums.
  std::uint32_t blocks_[kChunk], first_[kChunk];
  float sums_[kChunk];
};

void finish_masses(const Head &head, const Attended &result, const float *log_sums);

}  // namespace kvsift

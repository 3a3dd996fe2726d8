// Shares of single tokens: their weights, relative to each chunk's maximum, until all chunks are
// through; then the shares that they are, for each query head or joined for the group.
#pragma once

#include "attend/attend.h"
#include "attend/chunk.h"

namespace kvsift {

bool wants_shares(const Attended &result);
// Where a chunk's weights, [group][kChunk], are kept without being copied; null: nowhere.
float *room_for_weights(const Head &head, const Attended &result, const Chunk &chunk, std::uint32_t number);
void begin_shares(const Head &head, const Attended &result, const List &list);
// `rows`: [group][kChunk] weights of the chunk's tokens.
void keep_weights(const Head &head, const Attended &result, const Chunk &chunk,
                  std::uint32_t number, const float *rows, const float *max);
void finish_shares(const Head &head, const Attended &result, const List &list,
                   const float *log_sums);

}  // namespace kvsift

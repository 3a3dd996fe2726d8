#include "attend/shares.h"

#include <cstring>

#include "kernels/load_part.h"

namespace kvsift {

namespace {

std::uint32_t chunks_of(const List &list) {
  std::uint32_t tokens = 0;
  for (std::uint32_t i = 0; i < list.count; ++i)
    tokens += list.ranges[i].end - list.ranges[i].begin;
  return (tokens + kChunk - 1) / kChunk;
}

bool is_everything(const List &list, std::uint32_t tokens) {
  return list.count == 1 && list.ranges[0].begin == 0 && list.ranges[0].end == tokens;
}

// The weights of chunk `number` that are joined in the end.
float *room_of(const Head &head, const Attended &result, std::uint32_t number) {
  return result.joined.weights + std::size_t{number} * kChunk * head.group;
}

void ask_for_sums(const Attended &result, const Chunk &chunk) {
  for (std::uint32_t r = 0; r < chunk.runs; ++r) {
    const float *sums = result.joined.sums + chunk.run[r].first;
    ask_for_lines(reinterpret_cast<const std::uint8_t *>(sums), 0,
                  chunk.run[r].count * sizeof(float));
  }
}

// Calls use(row of query head g, first token, how many, how many before them in the chunk).
template <class Use>
void by_rows(const Head &head, const Attended &result, const Chunk &chunk, Use use) {
  for (std::uint32_t g = 0; g < head.group; ++g) {
    float *row = result.block_mass + g * result.block_stride;
    for (std::uint32_t r = 0, before = 0; r < chunk.runs; before += chunk.run[r].count, ++r)
      use(g, row + chunk.run[r].first, chunk.run[r].count, before);
  }
}

void join(const Head &head, const Attended &result, const Chunk &chunk, std::uint32_t number,
          const float *shares) {
  const ArrayKernels &k = head.kernels->array;
  const auto join_rows = result.joined.largest ? k.largest : k.mean;
  const float *weights = room_of(head, result, number);
  for (std::uint32_t r = 0; r < chunk.runs; weights += chunk.run[r].count, ++r)
    join_rows(weights, chunk.size, head.group, shares, result.joined.row + chunk.run[r].first,
              chunk.run[r].count);
}

}  // namespace

bool wants_shares(const Attended &result) {
  return result.joined.row != nullptr || (result.block_tokens == 1 && result.block_mass != nullptr);
}

float *room_for_weights(const Head &head, const Attended &result, const Chunk &chunk, std::uint32_t number) {
  return result.joined.row != nullptr && chunk.full() ? room_of(head, result, number) : nullptr;
}

void begin_shares(const Head &head, const Attended &result, const List &list) {
  if (is_everything(list, result.blocks)) return;
  const std::size_t bytes = result.blocks * sizeof(float);
  if (result.joined.row != nullptr) {
    std::memset(result.joined.row, 0, bytes);
    return;
  }
  for (std::uint32_t g = 0; g < head.group; ++g)
    std::memset(result.block_mass + g * result.block_stride, 0, bytes);
}

void keep_weights(const Head &head, const Attended &result, const Chunk &chunk,
                  std::uint32_t number, const float *rows, const float *max) {
  for (std::uint32_t g = 0; g < head.group; ++g)
    result.chunk_max[g * result.chunks() + number] = max[g];
  if (result.joined.row == nullptr) {
    by_rows(head, result, chunk,
            [=](std::uint32_t g, float *row, std::uint32_t count, std::uint32_t before) {
              std::memcpy(row, rows + g * kChunk + before, count * sizeof(float));
            });
    return;
  }
  if (result.joined.sums != nullptr) ask_for_sums(result, chunk);
  if (rows == room_of(head, result, number)) return;
  for (std::uint32_t g = 0; g < head.group; ++g)
    std::memcpy(room_of(head, result, number) + g * chunk.size, rows + g * kChunk,
                chunk.size * sizeof(float));
}

void finish_shares(const Head &head, const Attended &result, const List &list,
                   const float *log_sums) {
  const ArrayKernels &k = head.kernels->array;
  for (std::uint32_t g = 0; g < head.group; ++g) {
    float *shares = result.chunk_max + g * result.chunks();
    k.exp(shares, log_sums[g], shares, chunks_of(list));
  }
  KeptWalk walk(list.ranges, list.count);
  Chunk chunk;
  for (std::uint32_t c = 0; walk.next(&chunk); ++c) {
    float shares[KVSIFT_MAX_GROUP];
    for (std::uint32_t g = 0; g < head.group; ++g)
      shares[g] = result.chunk_max[g * result.chunks() + c];
    if (result.joined.row != nullptr) {
      join(head, result, chunk, c, shares);
      continue;
    }
    by_rows(head, result, chunk,
            [&](std::uint32_t g, float *row, std::uint32_t count, std::uint32_t) {
              k.axpby(shares[g], row, 0.0f, row, count);
            });
  }
}

}  // namespace kvsift

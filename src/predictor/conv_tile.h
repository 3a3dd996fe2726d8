// A stretch of columns of a strip on its way through both convolutions.
#pragma once

#include "predictor/history_impl.h"

namespace kvsift {
namespace {

constexpr std::uint32_t kTile = 32;                        // columns of s computed from one tile
constexpr std::uint32_t kTileShares = kTile + 2 * kReach;
constexpr std::uint32_t kTileMiddle = kTile + 2;
constexpr std::uint32_t kStripShares = kStripRows + 2 * kReach;
constexpr std::uint32_t kStripMiddle = kStripRows + 2;

// shares[i][x] is history row first + i - 2, column t - 2 + x; middle[i][x] is row first + i - 1, column t - 1 + x.
struct ConvTile {
  float shares[kStripShares][kTileShares + kLanes];
  alignas(64) float middle[kStripMiddle][kTileMiddle][kMiddle];
  std::uint64_t filled[kStripShares];  // bit x: shares[i][x] is not zero
};

inline std::uint64_t bits_below(std::uint32_t n) { return (1ull << n) - 1; }

// Bit x: shares[x] is not zero. Most stretches of a sparse row are zero altogether.
template <class V>
std::uint64_t filled_bits(const float *shares) {
  const V ends = max(V::load(shares), V::load(shares + kTileShares - kLanes));
  if (reduce_max(max(ends, V::load(shares + kLanes))) == 0) return 0;
  std::uint64_t filled = 0;
  for (std::uint32_t x = 0; x < kTileShares; ++x) {
    filled |= static_cast<std::uint64_t>(shares[x] != 0) << x;
  }
  return filled;
}

template <class V>
void load_tile(const ConvStrip &strip, std::uint32_t t, ConvTile *tile) {
  const std::uint32_t begin = t < strip.left + kReach ? strip.left : t - kReach;
  const std::uint32_t before = begin + kReach - t;
  const std::uint32_t end = strip.right - t < kTile + kReach ? strip.right : t + kTile + kReach;
  for (std::uint32_t i = 0; i < strip.count + 2 * kReach; ++i) {
    float *shares = tile->shares[i];
    tile->filled[i] = 0;
    if (strip.rows[i] == nullptr) continue;
    for (std::uint32_t x = 0; x < before; ++x) shares[x] = 0;
    load_shares<V>(strip.rows[i], strip.form, begin, end, strip.row_columns, shares + before);
    const std::uint32_t used = before + end - begin;
    for (std::uint32_t x = used; x < kTileShares; ++x) shares[x] = 0;
    tile->filled[i] = filled_bits<V>(shares);
  }
}

// Columns whose s is to be computed; they share which rows their neighbourhoods lack.
struct ConvBatch {
  const float *middle[kStripRows * kTile];  // 3x3 neighbourhood's first middle vector
  float *out[kStripRows * kTile];
  std::uint8_t side[kStripRows * kTile];    // of the crop: 1 its first column, 2 its last
  std::uint32_t count;

  void add(const float *from, float *to, std::uint32_t where) {
    middle[count] = from;
    out[count] = to;
    side[count++] = static_cast<std::uint8_t>(where);
  }
};

}  // namespace
}  // namespace kvsift

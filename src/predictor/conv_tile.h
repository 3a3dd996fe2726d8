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
  // With codes: where middle is other than in an empty history, and its largest size, else 0.
  std::uint64_t beyond[kStripMiddle];
  float size[kStripMiddle][kTile + kLanes];
};

inline std::uint64_t bits_below(std::uint32_t n) { return (1ull << n) - 1; }

// Bit x: shares[x] is more than zero. Each lane adds its own bit.
template <class V>
std::uint64_t filled_bits(const float *shares) {
  static constexpr float kBit[kLanes] = {1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768};
  const V bit = V::load(kBit), zero = V::zero();
  V part[3];
  for (std::uint32_t i = 0; i < 3; ++i) part[i] = where_less(zero, V::load(shares + kLanes * i), bit, zero);
  float bits[4];
  reduce_add4(part[0], part[1], part[2], zero, bits);
  std::uint64_t filled = 0;
  for (std::uint32_t i = 0; i < 3; ++i) filled |= std::uint64_t{static_cast<std::uint32_t>(bits[i])} << (kLanes * i);
  return filled & bits_below(kTileShares);
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

// Bit x: middle column x lies in the crop.
inline std::uint64_t inside_crop(const ConvStrip &strip, std::uint32_t t) {
  const std::uint32_t end = strip.right - t < kTileMiddle ? strip.right - t + 1 : kTileMiddle;
  return bits_below(end) & ~std::uint64_t{t == strip.left};
}

// Bit x: not all shares around middle column x are zero.
inline std::uint64_t filled_around(const ConvTile &tile, std::uint32_t row) {
  const std::uint64_t any = tile.filled[row] | tile.filled[row + 1] | tile.filled[row + 2];
  return any | any >> 1 | any >> 2;
}

// As EmptyScores has it: which rows the deep channels of a row of s lack.
inline std::uint32_t missing_rows(const ConvStrip &strip, std::uint32_t row) {
  return (strip.rows[row + 1] == nullptr ? 1u : 0u) | (strip.rows[row + 3] == nullptr ? 2u : 0u);
}

template <class V>
V middle_at(const ConvStrip &strip, const ConvTile &tile, std::uint32_t row, std::uint32_t x) {
  const PredictorWeights &w = *strip.weights;
  V sum = V::load(w.bias1);
  for (std::uint32_t dy = 0; dy < 3; ++dy) {
    if (strip.rows[row + dy] == nullptr) continue;
    for (std::uint32_t dx = 0; dx < 3; ++dx) {
      sum = fma(V::load(w.conv1[3 * dy + dx]), V::broadcast(tile.shares[row + dy][x + dx]), sum);
    }
  }
  return max(sum, V::zero());
}

// Columns whose s is to be computed; they share which rows their neighbourhoods lack.
struct ConvBatch {
  const float *middle[kStripRows * kTile];  // 3x3 neighbourhood's first middle vector
  float *out[kStripRows * kTile];
  std::uint32_t count;

  void add(const float *from, float *to) {
    middle[count] = from;
    out[count++] = to;
  }
};

}  // namespace
}  // namespace kvsift

// The kernels of conv_kernels.h over a vector class. `Columns` columns and `Halves` times 16 deep channels are computed
// together; other shapes give the same bits.
#pragma once

#include "kernels/element.h"
#include "predictor/conv_kernels.h"
#include "predictor/conv_tile.h"
#include "predictor/int8_impl.h"

namespace kvsift {
namespace {

// To the nearest bf16, ties to even.
inline void round_middle(float *middle) {
  std::uint32_t bits[kMiddle];
  __builtin_memcpy(bits, middle, sizeof bits);
  for (std::uint32_t c = 0; c < kMiddle; ++c) bits[c] = (bits[c] + 0x7fff + (bits[c] >> 16 & 1)) & 0xffff0000u;
  __builtin_memcpy(middle, bits, sizeof bits);
}

// First convolution of one row, at the columns of `wanted`; columns outside the crop are the second one's padding.
template <class V>
void convolve_middle(const ConvStrip &strip, std::uint32_t t, std::uint32_t row,
                     std::uint64_t wanted, ConvTile *tile) {
  const PredictorWeights &w = *strip.weights;
  for (; wanted != 0; wanted &= wanted - 1) {
    const auto x = static_cast<std::uint32_t>(__builtin_ctzll(wanted));
    float *out = tile->middle[row][x];
    if (t + x < strip.left + 1 || t + x > strip.right) {
      store(out, V::zero());
      continue;
    }
    V sum = V::load(w.bias1);
    for (std::uint32_t dy = 0; dy < 3; ++dy) {
      if (strip.rows[row + dy] == nullptr) continue;
      for (std::uint32_t dx = 0; dx < 3; ++dx) {
        sum = fma(V::load(w.conv1[3 * dy + dx]), V::broadcast(tile->shares[row + dy][x + dx]), sum);
      }
    }
    const V middle = max(sum, V::zero());
    store(out, strip.codes == nullptr ? middle : sub(middle, V::load(strip.codes->middle)));
    if (strip.rounded != nullptr) round_middle(out);
  }
}

// `conv2` has [kTaps][kMiddle][kDeep]. Not inlined: the columns' addresses need all registers.
template <class V, std::uint32_t Columns, std::uint32_t Halves, class T>
__attribute__((noinline)) void convolve_deep(const PredictorWeights &w, const T *conv2, const float *const *middle,
                   std::uint32_t dy_begin, std::uint32_t dy_end, float *const *out) {
  V s[Columns];
  for (std::uint32_t c = 0; c < Columns; ++c) s[c] = V::zero();
  for (std::uint32_t half = 0; half < 2; half += Halves) {
    V sum[Columns][Halves];
    for (std::uint32_t c = 0; c < Columns; ++c)
      for (std::uint32_t h = 0; h < Halves; ++h) sum[c][h] = V::load(w.bias2 + kLanes * (half + h));
    for (std::uint32_t dy = dy_begin; dy < dy_end; ++dy) {
      const T *weights = conv2 + 3 * dy * kMiddle * kDeep + kLanes * half;
      const std::uint32_t at = dy * kTileMiddle * kMiddle;
      for (std::uint32_t i = 0; i < 3 * kMiddle; ++i, weights += kDeep) {
        V weight[Halves];
        for (std::uint32_t h = 0; h < Halves; ++h) weight[h] = V::load(weights + kLanes * h);
        for (std::uint32_t c = 0; c < Columns; ++c) {
          const V x = V::broadcast(middle[c][at + i]);
          for (std::uint32_t h = 0; h < Halves; ++h) sum[c][h] = fma(weight[h], x, sum[c][h]);
        }
      }
    }
    for (std::uint32_t h = 0; h < Halves; ++h) {
      const V last = V::load(w.conv3 + kLanes * (half + h));
      for (std::uint32_t c = 0; c < Columns; ++c) s[c] = fma(max(sum[c][h], V::zero()), last, s[c]);
    }
  }
  for (std::uint32_t c = 0; c < Columns; ++c) *out[c] = reduce_add(s[c]);
}

template <class V, class T>
void flush(const PredictorWeights &w, const T *conv2, std::uint32_t dy_begin, std::uint32_t dy_end, ConvBatch *batch) {
  constexpr std::uint32_t kMost = V::kConvColumns, kLeast = kMost < 4 ? kMost : 4;
  std::uint32_t i = 0;
  for (; i + kMost <= batch->count; i += kMost) {
    convolve_deep<V, kMost, V::kConvHalves>(w, conv2, batch->middle + i, dy_begin, dy_end, batch->out + i);
  }
  // Fewer columns at once take as long as kLeast do: the last one is repeated.
  while (batch->count % kLeast != 0) {
    const std::uint32_t last = batch->count - 1;
    batch->add(batch->middle[last], batch->out[last], batch->side[last]);
  }
  for (; i < batch->count; i += kLeast) {
    convolve_deep<V, kLeast, V::kConvHalves>(w, conv2, batch->middle + i, dy_begin, dy_end, batch->out + i);
  }
  batch->count = 0;
}

// The constants of one row's empty neighbourhoods, in all columns.
inline void put_empty(const ConvStrip &strip, std::uint32_t t, std::uint32_t row, std::uint32_t width) {
  const std::uint32_t rows = (strip.rows[row + 1] == nullptr ? 1u : 0u) |
                             (strip.rows[row + 3] == nullptr ? 2u : 0u);
  const float *empty = strip.empty->s[rows];
  float *out = strip.out[row] + t;
  for (std::uint32_t x = 0; x < width; ++x) out[x] = empty[0];
  if (t == strip.left) out[0] = empty[1];
  if (t + width == strip.right) out[width - 1] = empty[2];
}

template <class V>
std::uint64_t convolve_tile(const ConvStrip &strip, std::uint32_t t, ConvTile *tile) {
  const std::uint32_t width = strip.end - t < kTile ? strip.end - t : kTile;
  std::uint64_t active[kStripRows] = {}, wanted[kStripMiddle] = {}, computed = 0;
  load_tile<V>(strip, t, tile);
  for (std::uint32_t r = 0; r < strip.count; ++r) {
    std::uint64_t any = 0;
    for (std::uint32_t i = r; i <= r + 2 * kReach; ++i) any |= tile->filled[i];
    active[r] = strip.empty == nullptr ? ~0ull : any | any >> 1 | any >> 2 | any >> 3 | any >> 4;
    active[r] &= bits_below(width);
    for (std::uint32_t i = r; i < r + 3; ++i) {
      if (strip.rows[i + 1] != nullptr) wanted[i] |= active[r] | active[r] << 1 | active[r] << 2;
    }
  }
  for (std::uint32_t i = 0; i < strip.count + 2; ++i) convolve_middle<V>(strip, t, i, wanted[i], tile);
  ConvBatch batch;
  batch.count = 0;
  for (std::uint32_t r = 0; r < strip.count; ++r) {
    if (active[r] != bits_below(width)) put_empty(strip, t, r, width);
    for (std::uint64_t left = active[r]; left != 0; left &= left - 1) {
      const auto x = static_cast<std::uint32_t>(__builtin_ctzll(left));
      const std::uint32_t side = t + x == strip.left ? 1 : t + x + 1 == strip.right ? 2 : 0;
      batch.add(tile->middle[r][x], strip.out[r] + t + x, side);
      strip.filled[r][(t + x) / kLanes] = 1;
    }
    computed += static_cast<std::uint64_t>(__builtin_popcountll(active[r]));
    const bool above = strip.rows[r + 1] != nullptr, below = strip.rows[r + 3] != nullptr;
    const bool next_differs = r + 1 == strip.count || above != (strip.rows[r + 2] != nullptr) ||
                              below != (strip.rows[r + 4] != nullptr);
    if (!next_differs) continue;
    const std::uint32_t dy_begin = above ? 0 : 1, dy_end = below ? 3 : 2;
    const PredictorWeights &w = *strip.weights;
    if (strip.codes != nullptr) {
      flush_codes<V>(w, *strip.codes, dy_begin, dy_end, &batch);
    } else if (strip.rounded != nullptr) {
      flush<V>(w, strip.rounded->conv2[0][0], dy_begin, dy_end, &batch);
    } else {
      flush<V>(w, w.conv2[0][0], dy_begin, dy_end, &batch);
    }
  }
  return computed;
}

template <class V>
std::uint64_t conv_strip(const ConvStrip &strip) {
  ConvTile tile;
  std::uint64_t computed = 0;
  for (std::uint32_t t = strip.begin; t < strip.end;) {
    computed += convolve_tile<V>(strip, t, &tile);
    t = strip.end - t <= kTile ? strip.end : t + kTile;
  }
  return computed;
}

template <class V>
constexpr PredictorKernels predictor_kernels = {conv_strip<V>, mean_rows<V>, store_row<V>};

}  // namespace
}  // namespace kvsift

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
void convolve_middle(const ConvStrip &strip, std::uint32_t t, std::uint32_t row, std::uint64_t wanted, ConvTile *tile) {
  const std::uint64_t inside = inside_crop(strip, t), around = filled_around(*tile, row);
  const V empty = max(V::load(strip.weights->bias1), V::zero());
  for (; wanted != 0; wanted &= wanted - 1) {
    const auto x = static_cast<std::uint32_t>(__builtin_ctzll(wanted));
    float *out = tile->middle[row][x];
    if ((inside >> x & 1) == 0) {
      store(out, V::zero());
    } else {
      store(out, (around >> x & 1) == 0 ? empty : middle_at<V>(strip, *tile, row, x));
    }
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
    batch->add(batch->middle[last], batch->out[last]);
  }
  for (; i < batch->count; i += kLeast) {
    convolve_deep<V, kLeast, V::kConvHalves>(w, conv2, batch->middle + i, dy_begin, dy_end, batch->out + i);
  }
  batch->count = 0;
}

// The constants of one row's empty neighbourhoods, in all columns.
inline void put_empty(const ConvStrip &strip, std::uint32_t t, std::uint32_t row, std::uint32_t width) {
  const float *empty = strip.empty->s[missing_rows(strip, row)];
  float *out = strip.out[row] + t;
  for (std::uint32_t x = 0; x < width; ++x) out[x] = empty[0];
  if (t == strip.left) out[0] = empty[1];
  if (t + width == strip.right) out[width - 1] = empty[2];
}

inline void mark_filled(const ConvStrip &strip, std::uint32_t t, std::uint32_t row, std::uint64_t active) {
  for (; active != 0; active &= active - 1) {
    strip.filled[row][(t + static_cast<std::uint32_t>(__builtin_ctzll(active))) / kLanes] = 1;
  }
}

// The second convolution, where `active` says, of rows that lack the same neighbours at once.
template <class V>
void convolve_active(const ConvStrip &strip, std::uint32_t t, const std::uint64_t *active, const ConvTile &tile) {
  ConvBatch batch;
  batch.count = 0;
  for (std::uint32_t r = 0; r < strip.count; ++r) {
    for (std::uint64_t left = active[r]; left != 0; left &= left - 1) {
      const auto x = static_cast<std::uint32_t>(__builtin_ctzll(left));
      batch.add(tile.middle[r][x], strip.out[r] + t + x);
    }
    const std::uint32_t missing = missing_rows(strip, r);
    if (r + 1 < strip.count && missing_rows(strip, r + 1) == missing) continue;
    const std::uint32_t dy_begin = (missing & 1) != 0 ? 1 : 0, dy_end = (missing & 2) != 0 ? 2 : 3;
    if (strip.rounded != nullptr) {
      flush<V>(*strip.weights, strip.rounded->conv2[0][0], dy_begin, dy_end, &batch);
    } else {
      flush<V>(*strip.weights, strip.weights->conv2[0][0], dy_begin, dy_end, &batch);
    }
  }
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
    if (active[r] != bits_below(width)) put_empty(strip, t, r, width);
    mark_filled(strip, t, r, active[r]);
    computed += static_cast<std::uint64_t>(__builtin_popcountll(active[r]));
  }
  if (computed == 0) return 0;
  if (strip.codes == nullptr) {
    for (std::uint32_t i = 0; i < strip.count + 2; ++i) convolve_middle<V>(strip, t, i, wanted[i], tile);
    convolve_active<V>(strip, t, active, *tile);
  } else {
    for (std::uint32_t i = 0; i < strip.count + 2; ++i) find_beyond<V>(strip, t, i, wanted[i], tile);
    for (std::uint32_t r = 0; r < strip.count; ++r) convolve_codes<V>(strip, t, r, active[r], *tile);
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

// A tile of a strip on its way through the first convolution: up to kStripRows rows of s by kTile columns, four warps.
// Rows outside the window and columns outside the crop are zeros, which a multiply-add leaves the sum alone for; the CPU
// leaves the rows out.
#pragma once

#include "cuda/predictor/history.cuh"
#include "cuda/predictor/tile.h"

namespace kvsift {
namespace {

constexpr std::uint32_t kTileThreads = 128;
constexpr std::uint32_t kTileShares = kTile + 2 * kReach, kTileMiddle = kTile + 2;
constexpr std::uint32_t kStripShares = kStripRows + 2 * kReach, kStripMiddle = kStripRows + 2;
// Floats from one place's channels to the next one's: eight places in a row then lie in different banks.
constexpr std::uint32_t kPlace = kMiddle + 4;

struct alignas(16) FirstWeights {
  float conv1[kTaps][kMiddle];
  float bias1[kMiddle];
  float empty[kMiddle];  // what is taken away from the middle channels: zero in float32
};

struct TileList {
  std::uint64_t filled[kStripShares];
  std::uint32_t active[kStripRows];
  std::uint16_t place[kStripRows * kTile];  // row * kTile + column of those to compute
  std::uint32_t count;
};

struct Tile : TileList {
  float shares[kStripShares][kTileShares];
  alignas(16) float middle[kStripMiddle][kTileMiddle][kPlace];

  __device__ void put_share(std::uint32_t i, std::uint32_t x, float share) { shares[i][x] = share; }
};

// Which rows and columns a tile stands for.
struct TilePlace {
  std::uint32_t row, rows;    // from the window's first
  std::uint32_t begin, width; // columns
};

// Tile `index` of a plan; false beyond the last.
__device__ inline bool find_tile(const PredictionPlan &plan, std::uint32_t index, TilePlace *place) {
#pragma unroll
  for (int i = 0; i < 3; ++i) {
    const PlannedRows part = plan.part[i];
    const std::uint32_t strips = (part.count + kStripRows - 1) / kStripRows, tiles = strips * part.tiles;
    if (index < tiles) {
      const std::uint32_t strip = index / part.tiles, left = part.count - strip * kStripRows;
      place->row = part.row + strip * kStripRows;
      place->rows = left < kStripRows ? left : kStripRows;
      place->begin = part.first + index % part.tiles * kTile;
      place->width = plan.right - place->begin < kTile ? plan.right - place->begin : kTile;
      return true;
    }
    index -= tiles;
  }
  return false;
}

// A warp for each row in turn: its shares, and which of them are not zero. All of a warp's loads are on their way together.
template <class Stored, class T>
__device__ void load_stored(const History &h, const PredictionPlan &plan, const TilePlace &p, T *tile) {
  constexpr std::uint32_t kWarps = kTileThreads / kWarpThreads, kRows = kStripShares / kWarps, kPieces = 2;
  static_assert(kRows * kWarps == kStripShares && kPieces * kWarpThreads >= kTileShares, "");
  const std::uint32_t warp = threadIdx.x / kWarpThreads, lane = threadIdx.x % kWarpThreads;
  Stored stored[kRows][kPieces];
  bool inside[kRows][kPieces];
#pragma unroll
  for (std::uint32_t k = 0; k < kRows; ++k) {
    const std::uint32_t i = warp + k * kWarps;
    // The row that is `i` less two after the tile's first, where that is of the window.
    const bool row_inside = i < p.rows + 2 * kReach && p.row + i >= kReach && p.row + i < plan.rows + kReach;
    const std::uint32_t slot = row_inside ? plan.ring_slot + p.row + i - kReach : 0;
    const Stored *from = h.stored<Stored>(slot < h.all.shape.slots ? slot : slot - h.all.shape.slots);
#pragma unroll
    for (std::uint32_t piece = 0; piece < kPieces; ++piece) {
      const std::uint32_t x = piece * kWarpThreads + lane, column = p.begin + x - kReach;  // wraps below zero, beyond `right`
      inside[k][piece] = row_inside && x < kTileShares && p.begin + x >= plan.left + kReach && column < plan.right;
      stored[k][piece] = from[inside[k][piece] ? column : plan.left];
    }
  }
#pragma unroll
  for (std::uint32_t k = 0; k < kRows; ++k) {
    const std::uint32_t i = warp + k * kWarps;
    std::uint64_t filled = 0;
#pragma unroll
    for (std::uint32_t piece = 0; piece < kPieces; ++piece) {
      const std::uint32_t x = piece * kWarpThreads + lane;
      const float share = inside[k][piece] ? share_of(stored[k][piece]) : 0.0f;
      if (x < kTileShares) tile->put_share(i, x, share);
      filled |= static_cast<std::uint64_t>(__ballot_sync(kAllLanes, share != 0.0f)) << piece * kWarpThreads;
    }
    if (lane == 0) tile->filled[i] = filled;
  }
}

template <class T>
__device__ void load_shares(const History &h, const PredictionPlan &plan, const TilePlace &p, T *tile) {
  switch (h.all.shape.form) {
    case HistoryForm::kFloat: return load_stored<float>(h, plan, p, tile);
    case HistoryForm::kHalf: return load_stored<F16>(h, plan, p, tile);
    case HistoryForm::kRoot8: return load_stored<std::int8_t>(h, plan, p, tile);
  }
}

// Lists the places whose neighbourhood holds something, row by row; a warp for each row.
__device__ inline void find_active(const TilePlace &p, bool all, TileList *tile) {
  const std::uint32_t r = threadIdx.x / kWarpThreads, lane = threadIdx.x % kWarpThreads;
  std::uint32_t active[kStripRows], before = 0, count = 0;
#pragma unroll
  for (std::uint32_t k = 0; k < kStripRows; ++k) {
    std::uint64_t any = 0;
    for (std::uint32_t i = k; i <= k + 2 * kReach; ++i) any |= tile->filled[i];
    any = all ? ~0ull : any | any >> 1 | any >> 2 | any >> 3 | any >> 4;
    const std::uint32_t within = p.width == kTile ? ~0u : (1u << p.width) - 1;
    active[k] = k < p.rows ? static_cast<std::uint32_t>(any) & within : 0;
    if (k < r) before += __popc(active[k]);
    count += __popc(active[k]);
  }
  const std::uint32_t own = r == 0 ? active[0] : r == 1 ? active[1] : r == 2 ? active[2] : active[3];
  if ((own >> lane & 1) != 0) {
    tile->place[before + __popc(own & ((1u << lane) - 1))] = static_cast<std::uint16_t>(r * kTile + lane);
  }
  if (lane == 0) tile->active[r] = own;
  if (threadIdx.x == 0) tile->count = count;
}

// The first convolution wherever the second one looks: four channels of one place a thread.
__device__ inline void convolve_middle(const PredictionPlan &plan, const TilePlace &p, const FirstWeights &w, Tile *tile) {
  constexpr std::uint32_t kQuads = kMiddle / 4;
  for (std::uint32_t n = threadIdx.x; n < (p.rows + 2) * kTileMiddle * kQuads; n += kTileThreads) {
    const std::uint32_t quad = n % kQuads, x = n / kQuads % kTileMiddle, i = n / (kQuads * kTileMiddle);
    std::uint64_t near = 0;
    for (std::uint32_t r = i < 2 ? 0 : i - 2; r <= i && r < kStripRows; ++r) near |= tile->active[r];
    if (((near | near << 1 | near << 2) >> x & 1) == 0) continue;
    float4 sum = make_float4(0, 0, 0, 0);
    const bool row_inside = p.row + i >= 1 && p.row + i <= plan.rows;
    if (row_inside && p.begin + x >= plan.left + 1 && p.begin + x <= plan.right) {
      sum = reinterpret_cast<const float4 *>(w.bias1)[quad];
#pragma unroll
      for (std::uint32_t tap = 0; tap < kTaps; ++tap) {
        const float4 weight = reinterpret_cast<const float4 *>(w.conv1[tap])[quad];
        const float share = tile->shares[i + tap / 3][x + tap % 3];
        sum.x = __fmaf_rn(weight.x, share, sum.x);
        sum.y = __fmaf_rn(weight.y, share, sum.y);
        sum.z = __fmaf_rn(weight.z, share, sum.z);
        sum.w = __fmaf_rn(weight.w, share, sum.w);
      }
      const float4 empty = reinterpret_cast<const float4 *>(w.empty)[quad];
      sum.x = (sum.x > 0.0f ? sum.x : 0.0f) - empty.x;
      sum.y = (sum.y > 0.0f ? sum.y : 0.0f) - empty.y;
      sum.z = (sum.z > 0.0f ? sum.z : 0.0f) - empty.z;
      sum.w = (sum.w > 0.0f ? sum.w : 0.0f) - empty.w;
    }
    *reinterpret_cast<float4 *>(&tile->middle[i][x][4 * quad]) = sum;
  }
}

// Which rows the neighbourhood of the tile's row r lacks, and which side of the crop column x is: as in EmptyScores.
__device__ inline std::uint32_t missing_rows(const PredictionPlan &plan, const TilePlace &p, std::uint32_t r) {
  return (p.row + r == 0 ? 1u : 0u) | (p.row + r + 1 == plan.rows ? 2u : 0u);
}
__device__ inline std::uint32_t side_of(const PredictionPlan &plan, const TilePlace &p, std::uint32_t x) {
  return p.begin + x == plan.left ? 1u : p.begin + x + 1 == plan.right ? 2u : 0u;
}

// Constants where nothing is computed; marks where something is. A warp for each row.
__device__ inline void put_empty(const History &h, const PredictionPlan &plan, const TilePlace &p, const TileList &tile) {
  const std::uint32_t r = threadIdx.x / kWarpThreads, x = threadIdx.x % kWarpThreads;
  if (r >= p.rows || x >= p.width) return;
  const std::uint32_t row = h.s_slot(plan, p.row + r);
  if ((tile.active[r] >> x & 1) != 0) {
    put_alike<std::uint8_t>(&h.filled(row)[(p.begin + x) / kLanes], 1);
  } else {
    h.s(row)[p.begin + x] = h.state().empty.s[missing_rows(plan, p, r)][side_of(plan, p, x)];
  }
}

__device__ inline void count_computed(const History &h, std::uint32_t count) {
  if (threadIdx.x != 0 || count == 0) return;
  const auto n = static_cast<unsigned long long>(count);
  atomicAdd(reinterpret_cast<unsigned long long *>(&h.state().computed), n);
  atomicAdd(reinterpret_cast<unsigned long long *>(&h.counters().columns_computed), n);
}

template <class T, class U>
__device__ inline void copy_floats(const T &from, U *to) {
  static_assert(sizeof(T) == sizeof(U), "");
  const auto *in = reinterpret_cast<const float4 *>(&from);
  auto *out = reinterpret_cast<float4 *>(to);
  constexpr std::uint32_t kBytes = sizeof(T);
  for (std::uint32_t i = threadIdx.x; i < kBytes / sizeof(float4); i += kTileThreads) out[i] = in[i];
}

// The second convolution: a warp takes 32 places by 32 deep channels, a thread 4 places, 8 apart in the list, by channels
// 4 part .. 4 part + 3 and those 16 above.
constexpr std::uint32_t kPlaces = 4, kWarpPlaces = 8 * kPlaces;

__device__ inline std::uint32_t channel_part() { return threadIdx.x % kWarpThreads / 8; }

// The thread's k-th place of those from `first` on; beyond the list's end the last one again.
__device__ inline std::uint32_t place_of(const Tile &tile, std::uint32_t first, std::uint32_t k) {
  const std::uint32_t n = first + 8 * k + threadIdx.x % 8;
  return tile.place[n < tile.count ? n : tile.count - 1];
}

// s from the deep channels, by the tree over lanes.
__device__ inline float reduce_channels(const float (&deep)[8], const float *conv3, std::uint32_t part) {
  float v[4];
#pragma unroll
  for (std::uint32_t i = 0; i < 4; ++i) {
    const float low = deep[i] > 0.0f ? deep[i] : 0.0f, high = deep[4 + i] > 0.0f ? deep[4 + i] : 0.0f;
    v[i] = __fmaf_rn(high, conv3[16 + 4 * part + i], __fmaf_rn(low, conv3[4 * part + i], 0.0f));
    v[i] += __shfl_xor_sync(kAllLanes, v[i], 16);
    v[i] += __shfl_xor_sync(kAllLanes, v[i], 8);
  }
  return (v[0] + v[2]) + (v[1] + v[3]);
}

__device__ inline void put_places(const History &h, const PredictionPlan &plan, const TilePlace &p, const Tile &tile,
                                  std::uint32_t first, const float (&s)[kPlaces]) {
#pragma unroll
  for (std::uint32_t k = 0; k < kPlaces; ++k) {
    if (channel_part() != 0 || first + 8 * k + threadIdx.x % 8 >= tile.count) continue;
    const std::uint32_t place = place_of(tile, first, k);
    h.s(h.s_slot(plan, p.row + place / kTile))[p.begin + place % kTile] = s[k];
  }
}

// Brings a tile to where the second convolution takes over.
template <class T, class W>
__device__ void begin_tile(const History &h, const PredictionPlan &plan, const TilePlace &p, const W &w, T *tile) {
  load_shares(h, plan, p, tile);
  __syncthreads();
  find_active(p, h.all.plain != 0, tile);
  __syncthreads();
  convolve_middle(plan, p, w, tile);
  put_empty(h, plan, p, *tile);
  count_computed(h, tile->count);
  __syncthreads();
}

}  // namespace
}  // namespace kvsift

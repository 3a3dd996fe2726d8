// The second convolution in bf16, on tensor cores, and the first as well: its terms are split into two bf16 each, which is
// float32 but for the last eight bits. Sums have the tensor core's order: unlike the other forms' they are not the CPU's bits.
#include "cuda/core/tensor.cuh"
#include "cuda/predictor/network.h"
#include "cuda/predictor/tile.cuh"

using namespace kvsift;

namespace {

constexpr std::uint32_t kBlocks = 4;          // on a multiprocessor: convolution_of says the same
constexpr std::uint32_t kRow = kTileShares;   // places from a row to the next: the same for shares and for middle channels
constexpr std::uint32_t kProduct = 16;        // places of a product
constexpr std::uint32_t kWarpStride = kTileThreads / kWarpThreads * kProduct;
constexpr std::uint32_t kParts = kDeep / 8;   // of the deep channels

// Two numbers to the nearest bf16, with zero for what is below it.
__device__ std::uint32_t round_positive(float low, float high) {
#ifdef KVSIFT_EMULATED
  return round_pair<BF16>(low > 0.0f ? low : 0.0f, high > 0.0f ? high : 0.0f);
#else
  std::uint32_t pair;
  asm("cvt.rn.relu.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  return pair;
#endif
}

// A number as the sum of two bf16.
__device__ std::uint32_t split(float x) {
  const float most = __uint_as_float(round_pair<BF16>(x, 0.0f) << 16);
  return round_pair<BF16>(most, x - most);
}

struct RoundedTile : TileList {
  std::uint32_t shares[kStripShares * kRow + kProduct];                // split; the last product reads beyond the last row
  alignas(16) std::uint32_t middle[kStripMiddle * kRow][kMiddle / 2];  // pairs of channels
  float *out[kStripRows];

  __device__ void put_share(std::uint32_t i, std::uint32_t x, float share) { shares[i * kRow + x] = split(share); }
  __device__ void clear(std::uint32_t place) {
    auto *channels = reinterpret_cast<uint4 *>(middle[place]);
    channels[0] = channels[1] = make_uint4(0, 0, 0, 0);
  }
};

// The first convolution's weights as lanes hold them. Columns are channels in an order that leaves channels 4 (lane % 4) .. + 3
// to a lane. A term is a part of a share times a part of a weight: the first product has the weights' first parts, the second
// their rest, both for eight taps; the third has the last tap. In registers there is no room for them.
struct FirstMatrix {
  uint4 most[kWarpThreads], rest[kWarpThreads];
  uint2 last[kWarpThreads];
  alignas(16) float bias1[kMiddle];
};

__device__ std::uint32_t twice(std::uint32_t x) { return (x & 0xffffu) * 0x10001u; }

__device__ void fill_matrix(const PredictorWeights &w, FirstMatrix *m) {
  if (threadIdx.x < kMiddle) m->bias1[threadIdx.x] = w.bias1[threadIdx.x];
  if (threadIdx.x >= kWarpThreads) return;
  const std::uint32_t lane = threadIdx.x, part = lane % 4, channel = lane / 8 * 4 + lane / 4 % 2;
  std::uint32_t low[2], high[2], last[2];
#pragma unroll
  for (std::uint32_t n = 0; n < 2; ++n) {
    low[n] = split(w.conv1[part][channel + 2 * n]);
    high[n] = split(w.conv1[part + 4][channel + 2 * n]);
    last[n] = split(w.conv1[8][channel + 2 * n]);
  }
  m->most[lane] = make_uint4(twice(low[0]), twice(high[0]), twice(low[1]), twice(high[1]));
  m->rest[lane] = make_uint4(twice(low[0] >> 16), twice(high[0] >> 16), twice(low[1] >> 16), twice(high[1] >> 16));
  const std::uint32_t shift = part == 0 ? 0 : 16;
  m->last[lane] = part < 2 ? uint2{twice(last[0] >> shift), twice(last[1] >> shift)} : uint2{0, 0};
}

__device__ std::uint32_t place_of_tap(std::uint32_t tap) { return tap / 3 * kRow + tap % 3; }

// Middle channels outside the window and the crop. Columns are computed as all are, and cleared then.
__device__ void clear_outside(const PredictionPlan &plan, const TilePlace &p, RoundedTile *tile) {
  const bool above = p.row == 0, below = p.row + p.rows == plan.rows;
  const bool left = p.begin == plan.left, right = p.begin + p.width == plan.right;
  if (above && threadIdx.x < kRow) tile->clear(threadIdx.x);
  if (below && threadIdx.x < kRow) tile->clear((p.rows + 1) * kRow + threadIdx.x);
  if (!left && !right) return;
  __syncthreads();
  if (left && threadIdx.x < p.rows + 2) tile->clear(threadIdx.x * kRow);
  if (right && threadIdx.x < p.rows + 2) tile->clear(threadIdx.x * kRow + p.width + 1);
}

// The first convolution, where the second one looks anywhere: 16 places of the window's rows a warp at a time.
__device__ void convolve_middle(const PredictionPlan &plan, const TilePlace &p, const FirstMatrix &w, RoundedTile *tile) {
  if (tile->count == 0) return;
  const std::uint32_t lane = threadIdx.x % kWarpThreads, part = lane % 4, warp = threadIdx.x / kWarpThreads;
  const std::uint32_t low = place_of_tap(part), high = place_of_tap(part + 4);
  const std::uint32_t begin = p.row == 0 ? kRow : 0, end = (p.row + p.rows == plan.rows ? p.rows + 1 : p.rows + 2) * kRow;
  const uint4 most = w.most[lane], rest = w.rest[lane];
  const uint2 of_last = w.last[lane];
  const float4 bias = *reinterpret_cast<const float4 *>(w.bias1 + 4 * part);
  for (std::uint32_t first = begin + warp * kProduct; first < end; first += kWarpStride) {
    const std::uint32_t place = first + lane / 4;
    const std::uint32_t *from = tile->shares + place;
    const std::uint32_t shares[4] = {from[low], from[low + 8], from[high], from[high + 8]};
    const std::uint32_t last[4] = {from[place_of_tap(8)], from[place_of_tap(8) + 8], 0, 0};
    float sum[2][4] = {{bias.x, bias.y, bias.x, bias.y}, {bias.z, bias.w, bias.z, bias.w}};
    add_product<BF16>(sum[0], shares, uint2{most.x, most.y});
    add_product<BF16>(sum[1], shares, uint2{most.z, most.w});
    add_product<BF16>(sum[0], shares, uint2{rest.x, rest.y});
    add_product<BF16>(sum[1], shares, uint2{rest.z, rest.w});
    add_product<BF16>(sum[0], last, uint2{of_last.x, 0});
    add_product<BF16>(sum[1], last, uint2{of_last.y, 0});
#pragma unroll
    for (std::uint32_t k = 0; k < 2; ++k) {
      const uint2 channels{round_positive(sum[0][2 * k], sum[0][2 * k + 1]), round_positive(sum[1][2 * k], sum[1][2 * k + 1])};
      if (place + 8 * k < end) *reinterpret_cast<uint2 *>(&tile->middle[place + 8 * k][2 * part]) = channels;
    }
  }
  clear_outside(plan, p, tile);
}

struct alignas(16) DeepBiases {
  float bias2[kDeep], conv3[kDeep];
};

// 16 places from `first` of the tile's list; beyond its end the last one again.
__device__ void convolve_deep(const RoundedTile &tile, const DeepBiases &w, const uint2 (&matrix)[kTaps][kParts],
                              std::uint32_t first) {
  const std::uint32_t part = threadIdx.x % 4, own = first + threadIdx.x % kWarpThreads / 4;
  const std::uint32_t *from[2];
#pragma unroll
  for (std::uint32_t k = 0; k < 2; ++k) {
    const std::uint32_t place = tile.place[own + 8 * k < tile.count ? own + 8 * k : tile.count - 1];
    from[k] = &tile.middle[place / kTile * kRow + place % kTile][2 * part];
  }
  float sum[kParts][4];
#pragma unroll
  for (std::uint32_t n = 0; n < kParts; ++n) {
    const float2 bias = *reinterpret_cast<const float2 *>(w.bias2 + 8 * n + 2 * part);
    sum[n][0] = sum[n][2] = bias.x;
    sum[n][1] = sum[n][3] = bias.y;
  }
#pragma unroll
  for (std::uint32_t tap = 0; tap < kTaps; ++tap) {
    const std::uint32_t at = place_of_tap(tap) * (kMiddle / 2);
    const uint2 low = *reinterpret_cast<const uint2 *>(from[0] + at), high = *reinterpret_cast<const uint2 *>(from[1] + at);
    const std::uint32_t left[4] = {low.x, high.x, low.y, high.y};
#pragma unroll
    for (std::uint32_t n = 0; n < kParts; ++n) add_product<BF16>(sum[n], left, matrix[tap][n]);
  }
  __syncwarp();  // what only the sums need is not loaded before: there are no registers for it
  float s[2] = {};
#pragma unroll
  for (std::uint32_t n = 0; n < kParts; ++n) {
    const float2 last = *reinterpret_cast<const float2 *>(w.conv3 + 8 * n + 2 * part);
#pragma unroll
    for (std::uint32_t k = 0; k < 2; ++k) {
      s[k] = __fmaf_rn(fmaxf(sum[n][2 * k], 0.0f), last.x, s[k]);
      s[k] = __fmaf_rn(fmaxf(sum[n][2 * k + 1], 0.0f), last.y, s[k]);
    }
  }
#pragma unroll
  for (std::uint32_t k = 0; k < 2; ++k) {
    s[k] += __shfl_xor_sync(kAllLanes, s[k], 1);
    s[k] += __shfl_xor_sync(kAllLanes, s[k], 2);
    if (part != 0 || own + 8 * k >= tile.count) continue;
    const std::uint32_t place = tile.place[own + 8 * k];
    tile.out[place / kTile][place % kTile] = s[k];
  }
}

}  // namespace

// Blocks: [any number][heads * lists].
KVSIFT_KERNEL_RESIDENT(predictor_convolve_bf16, PredictorConvolveArgs, kTileThreads, kBlocks) {
  __shared__ RoundedTile tile;
  __shared__ FirstMatrix first;
  __shared__ DeepBiases deep;
  __shared__ PredictionPlan plan;
  if (threadIdx.x == 0) plan = args.histories.plans[blockIdx.y];
  __syncthreads();
  TilePlace p;
  if (plan.columns == 0 || !find_tile(plan, blockIdx.x, &p)) return;
  const History h(args.histories, blockIdx.y);
  const PredictorWeights &w = args.histories.predictor->weights;
  copy_floats(w.bias2, &deep.bias2);
  copy_floats(w.conv3, &deep.conv3);
  fill_matrix(w, &first);
  const std::uint32_t lane = threadIdx.x % kWarpThreads;
  uint2 matrix[kTaps][kParts];
#pragma unroll
  for (std::uint32_t tap = 0; tap < kTaps; ++tap) {
#pragma unroll
    for (std::uint32_t n = 0; n < kParts; ++n) {
      const BF16 *from = args.histories.predictor->rounded.turned[tap][8 * n + lane / 4] + lane % 4 * 4;
      matrix[tap][n] = *reinterpret_cast<const uint2 *>(from);
    }
  }
  for (std::uint32_t index = blockIdx.x; find_tile(plan, index, &p); index += gridDim.x) {
    if (threadIdx.x < p.rows) tile.out[threadIdx.x] = h.s(h.s_slot(plan, p.row + threadIdx.x)) + p.begin;
    begin_tile(h, plan, p, first, &tile);
#pragma unroll 1
    for (std::uint32_t from = threadIdx.x / kWarpThreads * kProduct; from < tile.count; from += kWarpStride) {
      convolve_deep(tile, deep, matrix, from);
    }
    __syncthreads();
  }
}

// The second convolution in float32: a warp takes 32 places by 32 deep channels, a thread 4 places by 8 channels.
#include "cuda/predictor/network.h"

#include "cuda/predictor/tile.cuh"

using namespace kvsift;

namespace {

struct DeepWeights {
  alignas(16) float conv2[kTaps * kMiddle][kDeep];
  float bias2[kDeep];
  float conv3[kDeep];
};

// Channels 4 part .. 4 part + 3, and those 16 above.
__device__ void add_tap(const float (*weights)[kDeep], const float *middle, const std::uint32_t (&at)[kPlaces],
                        std::uint32_t part, float (&sum)[kPlaces][8]) {
#pragma unroll
  for (std::uint32_t quad = 0; quad < kMiddle / 4; ++quad) {
    float4 x[kPlaces];
#pragma unroll
    for (std::uint32_t k = 0; k < kPlaces; ++k) x[k] = *reinterpret_cast<const float4 *>(middle + at[k] + 4 * quad);
#pragma unroll
    for (std::uint32_t i = 0; i < 4; ++i) {
      const float4 low = *reinterpret_cast<const float4 *>(weights[4 * quad + i] + 4 * part);
      const float4 high = *reinterpret_cast<const float4 *>(weights[4 * quad + i] + 16 + 4 * part);
#pragma unroll
      for (std::uint32_t k = 0; k < kPlaces; ++k) {
        const float v = i == 0 ? x[k].x : i == 1 ? x[k].y : i == 2 ? x[k].z : x[k].w;
        sum[k][0] = __fmaf_rn(low.x, v, sum[k][0]);
        sum[k][1] = __fmaf_rn(low.y, v, sum[k][1]);
        sum[k][2] = __fmaf_rn(low.z, v, sum[k][2]);
        sum[k][3] = __fmaf_rn(low.w, v, sum[k][3]);
        sum[k][4] = __fmaf_rn(high.x, v, sum[k][4]);
        sum[k][5] = __fmaf_rn(high.y, v, sum[k][5]);
        sum[k][6] = __fmaf_rn(high.z, v, sum[k][6]);
        sum[k][7] = __fmaf_rn(high.w, v, sum[k][7]);
      }
    }
  }
}

// 32 places from `first` of the tile's list; beyond its end the last one again.
__device__ void convolve_places(const DeepWeights &w, const Tile &tile, std::uint32_t first, float (&s)[kPlaces]) {
  const std::uint32_t part = channel_part();
  std::uint32_t at[kPlaces];
  float sum[kPlaces][8];
#pragma unroll
  for (std::uint32_t k = 0; k < kPlaces; ++k) {
    const std::uint32_t place = place_of(tile, first, k);
    at[k] = (place / kTile * kTileMiddle + place % kTile) * kPlace;
#pragma unroll
    for (std::uint32_t i = 0; i < 8; ++i) sum[k][i] = w.bias2[4 * part + i % 4 + 16 * (i / 4)];
  }
#pragma unroll 1
  for (std::uint32_t tap = 0; tap < kTaps; ++tap) {
    add_tap(w.conv2 + tap * kMiddle, &tile.middle[tap / 3][tap % 3][0], at, part, sum);
  }
#pragma unroll
  for (std::uint32_t k = 0; k < kPlaces; ++k) s[k] = reduce_channels(sum[k], w.conv3, part);
}

}  // namespace

// Blocks: [any number][heads * lists].
KVSIFT_KERNEL(predictor_convolve, PredictorConvolveArgs, kTileThreads) {
  __shared__ Tile tile;
  __shared__ DeepWeights deep;
  __shared__ FirstWeights middle;
  const PredictionPlan &plan = args.histories.plans[blockIdx.y];
  TilePlace p;
  if (plan.columns == 0 || !find_tile(plan, blockIdx.x, &p)) return;
  const History h(args.histories, blockIdx.y);
  const PredictorWeights &w = args.histories.predictor->weights;
  copy_floats(w.conv1, &middle.conv1);
  copy_floats(w.bias1, &middle.bias1);
  if (threadIdx.x < kMiddle) middle.empty[threadIdx.x] = 0.0f;
  copy_floats(w.conv2, &deep.conv2);
  copy_floats(w.bias2, &deep.bias2);
  copy_floats(w.conv3, &deep.conv3);
  __syncthreads();
  for (std::uint32_t index = blockIdx.x; find_tile(plan, index, &p); index += gridDim.x) {
    begin_tile(h, plan, p, middle, &tile);
    const std::uint32_t first = threadIdx.x / kWarpThreads * kWarpPlaces;
    if (first < tile.count) {
      float s[kPlaces];
      convolve_places(deep, tile, first, s);
      put_places(h, plan, p, tile, first, s);
    }
    __syncthreads();
  }
}

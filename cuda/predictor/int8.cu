// The second convolution in int8: each place's neighbourhood is coded by its own largest size.
#include "cuda/predictor/network.h"

#include "cuda/predictor/tile.cuh"

using namespace kvsift;

namespace {

constexpr std::uint32_t kWords = kTaps * kMiddle / 4;  // of four codes

struct CodedWeights {
  alignas(16) std::int32_t conv2[kWords][kDeep];
  float scale[kDeep];
  float conv3[kDeep];
  float base[4][3][kDeep];
};

struct CodedPlaces {
  alignas(16) std::int32_t code[kTileThreads][kWords];
  float unit[kTileThreads];  // what a code of 1 is worth
};

__device__ float4 middle_at(const float *from, std::uint32_t tap, std::uint32_t quad) {
  return *reinterpret_cast<const float4 *>(from + (tap / 3 * kTileMiddle + tap % 3) * kPlace + 4 * quad);
}

__device__ float larger_size(float most, float x) {
  const float size = fabsf(x);
  return most > size ? most : size;
}

__device__ std::uint32_t code_of(float x, float scale) {
  return static_cast<std::uint32_t>(static_cast<std::int32_t>(__fmaf_rn(x, scale, kRound) - kRound)) & 0xffu;
}

// A thread for each place of the tile's list.
__device__ void code_places(const Tile &tile, CodedPlaces *coded) {
  if (threadIdx.x >= tile.count) return;
  const std::uint32_t place = tile.place[threadIdx.x];
  const float *from = tile.middle[place / kTile][place % kTile];
  float most = 0.0f;
#pragma unroll 4
  for (std::uint32_t n = 0; n < kWords; ++n) {
    const float4 x = middle_at(from, n / 4, n % 4);
    most = larger_size(larger_size(larger_size(larger_size(most, x.x), x.y), x.z), x.w);
  }
  const float scale = most > 0.0f ? __fdiv_rn(127.0f, most) : 0.0f;
#pragma unroll 4
  for (std::uint32_t n = 0; n < kWords; ++n) {
    const float4 x = middle_at(from, n / 4, n % 4);
    coded->code[threadIdx.x][n] = static_cast<std::int32_t>(
        code_of(x.x, scale) | code_of(x.y, scale) << 8 | code_of(x.z, scale) << 16 | code_of(x.w, scale) << 24);
  }
  coded->unit[threadIdx.x] = __fdiv_rn(most, 127.0f);
}

__device__ void add_word(const std::int32_t *weights, const std::int32_t (&x)[kPlaces], std::int32_t (&sum)[kPlaces][8]) {
  const int4 low = *reinterpret_cast<const int4 *>(weights), high = *reinterpret_cast<const int4 *>(weights + 16);
#pragma unroll
  for (std::uint32_t k = 0; k < kPlaces; ++k) {
    sum[k][0] = __dp4a(low.x, x[k], sum[k][0]);
    sum[k][1] = __dp4a(low.y, x[k], sum[k][1]);
    sum[k][2] = __dp4a(low.z, x[k], sum[k][2]);
    sum[k][3] = __dp4a(low.w, x[k], sum[k][3]);
    sum[k][4] = __dp4a(high.x, x[k], sum[k][4]);
    sum[k][5] = __dp4a(high.y, x[k], sum[k][5]);
    sum[k][6] = __dp4a(high.z, x[k], sum[k][6]);
    sum[k][7] = __dp4a(high.w, x[k], sum[k][7]);
  }
}

__device__ void multiply_places(const CodedWeights &w, const CodedPlaces &coded, const std::uint32_t (&at)[kPlaces],
                                std::int32_t (&sum)[kPlaces][8]) {
  const std::uint32_t part = channel_part();
#pragma unroll 1
  for (std::uint32_t tap = 0; tap < kTaps; ++tap) {
    int4 x[kPlaces];
#pragma unroll
    for (std::uint32_t k = 0; k < kPlaces; ++k) x[k] = *reinterpret_cast<const int4 *>(coded.code[at[k]] + 4 * tap);
#pragma unroll
    for (std::uint32_t i = 0; i < 4; ++i) {
      std::int32_t word[kPlaces];
#pragma unroll
      for (std::uint32_t k = 0; k < kPlaces; ++k) word[k] = i == 0 ? x[k].x : i == 1 ? x[k].y : i == 2 ? x[k].z : x[k].w;
      add_word(w.conv2[4 * tap + i] + 4 * part, word, sum);
    }
  }
}

// 32 places from `first` of the tile's list.
__device__ void convolve_places(const PredictionPlan &plan, const TilePlace &p, const CodedWeights &w, const Tile &tile,
                                const CodedPlaces &coded, std::uint32_t first, float (&s)[kPlaces]) {
  const std::uint32_t part = channel_part();
  std::uint32_t at[kPlaces];
  std::int32_t sum[kPlaces][8] = {};
#pragma unroll
  for (std::uint32_t k = 0; k < kPlaces; ++k) {
    const std::uint32_t n = first + 8 * k + threadIdx.x % 8;
    at[k] = n < tile.count ? n : tile.count - 1;
  }
  multiply_places(w, coded, at, sum);
#pragma unroll
  for (std::uint32_t k = 0; k < kPlaces; ++k) {
    const std::uint32_t place = tile.place[at[k]];
    const float *base = w.base[missing_rows(plan, p, place / kTile)][side_of(plan, p, place % kTile)];
    const float unit = coded.unit[at[k]];
    float deep[8];
#pragma unroll
    for (std::uint32_t i = 0; i < 8; ++i) {
      const std::uint32_t channel = 4 * part + i % 4 + 16 * (i / 4);
      deep[i] = __fmaf_rn(static_cast<float>(sum[k][i]), unit * w.scale[channel], base[channel]);
    }
    s[k] = reduce_channels(deep, w.conv3, part);
  }
}

}  // namespace

// Blocks: [any number][heads * lists].
KVSIFT_KERNEL(predictor_convolve_int8, PredictorConvolveArgs, kTileThreads) {
  __shared__ Tile tile;
  __shared__ CodedWeights deep;
  __shared__ CodedPlaces coded;
  __shared__ FirstWeights middle;
  const PredictionPlan &plan = args.histories.plans[blockIdx.y];
  TilePlace p;
  if (plan.columns == 0 || !find_tile(plan, blockIdx.x, &p)) return;
  const History h(args.histories, blockIdx.y);
  const PredictorWeights &w = args.histories.predictor->weights;
  const PredictorCodes &codes = args.histories.predictor->codes;
  copy_floats(w.conv1, &middle.conv1);
  copy_floats(w.bias1, &middle.bias1);
  copy_floats(codes.middle, &middle.empty);
  copy_floats(codes.conv2, &deep.conv2);
  copy_floats(codes.scale, &deep.scale);
  copy_floats(codes.base, &deep.base);
  copy_floats(w.conv3, &deep.conv3);
  __syncthreads();
  for (std::uint32_t index = blockIdx.x; find_tile(plan, index, &p); index += gridDim.x) {
    begin_tile(h, plan, p, middle, &tile);
    code_places(tile, &coded);
    __syncthreads();
    const std::uint32_t first = threadIdx.x / kWarpThreads * kWarpPlaces;
    if (first < tile.count) {
      float s[kPlaces];
      convolve_places(plan, p, deep, tile, coded, first, s);
      put_places(h, plan, p, tile, first, s);
    }
    __syncthreads();
  }
}

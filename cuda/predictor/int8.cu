// The second convolution in int8, on tensor cores: sums of whole numbers have the same bits in any order. Each place's
// neighbourhood is coded by its own largest size. A product takes 16 places by 8 deep channels by the 16 codes of one tap.
#include "cuda/predictor/network.h"

#include "cuda/predictor/tile.cuh"

using namespace kvsift;

namespace {

constexpr std::uint32_t kWords = kTaps * kMiddle / 4;  // of four codes
constexpr std::uint32_t kParts = kDeep / 8;            // of the deep channels
constexpr std::uint32_t kProductPlaces = 16;

struct alignas(16) CodedWeights {  // copied 16 bytes at a time
  float scale[kDeep];
  float conv3[kDeep];
  float base[4][3][kDeep];
};

struct CodedPlaces {
  float size[kStripMiddle][kTileMiddle];  // the largest of each place's channels
  alignas(16) std::uint32_t code[kTileThreads][kWords];
  float unit[kTileThreads];  // what a code of 1 is worth
};

// What a lane holds: of the codes row lane / 4 and that + 8, word lane % 4; of the weights word lane % 4 of channel
// lane / 4; of the sums rows lane / 4 and that + 8, channels 2 (lane % 4) and the next.
__device__ void add_product(std::int32_t (&sum)[4], std::uint32_t low, std::uint32_t high, std::uint32_t weights) {
#ifdef KVSIFT_EMULATED
  const std::uint32_t lane = threadIdx.x % kWarpThreads;
  for (std::uint32_t k = 0; k < 4; ++k) {
    const auto a = static_cast<int>(__shfl_sync(kAllLanes, low, lane / 4 * 4 + k));
    const auto b = static_cast<int>(__shfl_sync(kAllLanes, high, lane / 4 * 4 + k));
    for (std::uint32_t e = 0; e < 2; ++e) {
      const auto w = static_cast<int>(__shfl_sync(kAllLanes, weights, (lane % 4 * 2 + e) * 4 + k));
      sum[e] = __dp4a(a, w, sum[e]);
      sum[2 + e] = __dp4a(b, w, sum[2 + e]);
    }
  }
#else
  asm("mma.sync.aligned.m16n8k16.row.col.s32.s8.s8.s32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
      : "+r"(sum[0]), "+r"(sum[1]), "+r"(sum[2]), "+r"(sum[3])
      : "r"(low), "r"(high), "r"(weights));
#endif
}

__device__ float larger_size(float most, float x) {
  const float size = fabsf(x);
  return most > size ? most : size;
}

__device__ void find_sizes(const Tile &tile, CodedPlaces *coded) {
  for (std::uint32_t n = threadIdx.x; n < kStripMiddle * kTileMiddle; n += kTileThreads) {
    const float *from = tile.middle[n / kTileMiddle][n % kTileMiddle];
    float most = 0.0f;
#pragma unroll
    for (std::uint32_t quad = 0; quad < kMiddle / 4; ++quad) {
      const float4 x = *reinterpret_cast<const float4 *>(from + 4 * quad);
      most = larger_size(larger_size(larger_size(larger_size(most, x.x), x.y), x.z), x.w);
    }
    coded->size[n / kTileMiddle][n % kTileMiddle] = most;
  }
}

// The code is the sum's low byte: adding 1.5 * 2^23 rounds to a whole number.
__device__ std::uint32_t code_of(float x, float scale) { return __float_as_uint(__fmaf_rn(x, scale, kRound)) & 0xffu; }

// A thread for each place of the tile's list.
__device__ void code_places(const Tile &tile, CodedPlaces *coded) {
  if (threadIdx.x >= tile.count) return;
  const std::uint32_t row = tile.place[threadIdx.x] / kTile, x = tile.place[threadIdx.x] % kTile;
  float most = 0.0f;
#pragma unroll
  for (std::uint32_t tap = 0; tap < kTaps; ++tap) {
    const float size = coded->size[row + tap / 3][x + tap % 3];
    most = most > size ? most : size;
  }
  const float scale = most > 0.0f ? __fdiv_rn(127.0f, most) : 0.0f;
#pragma unroll 3
  for (std::uint32_t tap = 0; tap < kTaps; ++tap) {
    const float *from = tile.middle[row + tap / 3][x + tap % 3];
    std::uint32_t word[4];
#pragma unroll
    for (std::uint32_t quad = 0; quad < 4; ++quad) {
      const float4 v = *reinterpret_cast<const float4 *>(from + 4 * quad);
      word[quad] = code_of(v.x, scale) | code_of(v.y, scale) << 8 | code_of(v.z, scale) << 16 | code_of(v.w, scale) << 24;
    }
    *reinterpret_cast<uint4 *>(coded->code[threadIdx.x] + 4 * tap) = make_uint4(word[0], word[1], word[2], word[3]);
  }
  coded->unit[threadIdx.x] = __fdiv_rn(most, 127.0f);
}

__device__ float deep_channel(const CodedWeights &w, const float *base, std::int32_t sum, float unit, std::uint32_t channel) {
  const float deep = __fmaf_rn(static_cast<float>(sum), unit * w.scale[channel], base[channel]);
  return deep > 0.0f ? deep : 0.0f;
}

// s of a place of which four lanes hold the sums, by the tree over lanes of the CPU; `half` 0 or 2 picks the place.
__device__ float reduce_sums(const CodedWeights &w, const float *base, const std::int32_t (&sum)[kParts][4], std::uint32_t half,
                             float unit) {
  float v[2];
#pragma unroll
  for (std::uint32_t e = 0; e < 2; ++e) {
    float of_part[2];
#pragma unroll
    for (std::uint32_t n = 0; n < 2; ++n) {
      const std::uint32_t channel = 8 * n + threadIdx.x % 4 * 2 + e;
      const float low = deep_channel(w, base, sum[n][half + e], unit, channel);
      const float high = deep_channel(w, base, sum[n + 2][half + e], unit, channel + 16);
      of_part[n] = __fmaf_rn(high, w.conv3[channel + 16], __fmaf_rn(low, w.conv3[channel], 0.0f));
    }
    v[e] = of_part[0] + of_part[1];
    v[e] += __shfl_xor_sync(kAllLanes, v[e], 2);
    v[e] += __shfl_xor_sync(kAllLanes, v[e], 1);
  }
  return v[0] + v[1];
}

struct Work {
  const History &h;
  const PredictionPlan &plan;
  const TilePlace &p;
  const Tile &tile;
  const CodedPlaces &coded;
  const CodedWeights &weights;

  // 16 places from `first` of the tile's list; beyond its end the last one again.
  __device__ void convolve(std::uint32_t first, const std::uint32_t (&matrix)[kTaps][kParts]) const {
    std::int32_t sum[kParts][4] = {};
    const std::uint32_t lane = threadIdx.x % kWarpThreads, own[2] = {first + lane / 4, first + lane / 4 + 8};
    std::uint32_t at[2];
#pragma unroll
    for (std::uint32_t i = 0; i < 2; ++i) at[i] = own[i] < tile.count ? own[i] : tile.count - 1;
#pragma unroll
    for (std::uint32_t tap = 0; tap < kTaps; ++tap) {
      const std::uint32_t low = coded.code[at[0]][4 * tap + lane % 4], high = coded.code[at[1]][4 * tap + lane % 4];
#pragma unroll
      for (std::uint32_t n = 0; n < kParts; ++n) add_product(sum[n], low, high, matrix[tap][n]);
    }
#pragma unroll
    for (std::uint32_t i = 0; i < 2; ++i) {
      const std::uint32_t row = tile.place[at[i]] / kTile, x = tile.place[at[i]] % kTile;
      const float *base = weights.base[missing_rows(plan, p, row)][side_of(plan, p, x)];
      const float s = reduce_sums(weights, base, sum, 2 * i, coded.unit[at[i]]);
      if (lane % 4 == 0 && own[i] < tile.count) h.s(h.s_slot(plan, p.row + row))[p.begin + x] = s;
    }
  }
};

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
  copy_floats(codes.scale, &deep.scale);
  copy_floats(codes.base, &deep.base);
  copy_floats(w.conv3, &deep.conv3);
  const std::uint32_t lane = threadIdx.x % kWarpThreads;
  std::uint32_t matrix[kTaps][kParts];
#pragma unroll
  for (std::uint32_t tap = 0; tap < kTaps; ++tap) {
#pragma unroll
    for (std::uint32_t n = 0; n < kParts; ++n) {
      matrix[tap][n] = *reinterpret_cast<const std::uint32_t *>(codes.conv2[tap][lane % 4][8 * n + lane / 4]);
    }
  }
  __syncthreads();
  for (std::uint32_t index = blockIdx.x; find_tile(plan, index, &p); index += gridDim.x) {
    begin_tile(h, plan, p, middle, &tile);
    find_sizes(tile, &coded);
    __syncthreads();
    code_places(tile, &coded);
    __syncthreads();
    const Work work{h, plan, p, tile, coded, deep};
    const std::uint32_t first = threadIdx.x / kWarpThreads * kWarpPlaces;
#pragma unroll 1
    for (std::uint32_t from = first; from < first + kWarpPlaces && from < tile.count; from += kProductPlaces) {
      work.convolve(from, matrix);
    }
    __syncthreads();
  }
}

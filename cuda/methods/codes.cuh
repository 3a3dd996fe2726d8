// Int8 pages against int8 queries, as codes_impl.h has them: whole numbers, whose sums are exact in any order.
#pragma once

#include "cuda/attend/moments.cuh"

namespace kvsift {
namespace {

// The queries of a group, and what meets the deviations: their squares or magnitudes.
struct CodedQueries {
  alignas(16) std::int8_t code[KVSIFT_MAX_GROUP * KVSIFT_MAX_HEAD_DIM];
  alignas(16) std::int8_t factor[KVSIFT_MAX_GROUP * KVSIFT_MAX_HEAD_DIM];
  float code_scale[KVSIFT_MAX_GROUP], factor_scale[KVSIFT_MAX_GROUP];
};

// One row f(c) by a warp, as array_to_int8; returns its scale.
template <class F>
__device__ inline float code_row(std::uint32_t dim16, std::int8_t *code, F f) {
  const std::uint32_t lane = threadIdx.x % kWarpThreads;
  float largest = 0.0f;
  for (std::uint32_t c = lane; c < dim16; c += kWarpThreads) {
    const float size = fabsf(f(c));
    largest = size > largest ? size : largest;
  }
#pragma unroll
  for (unsigned step = 16; step > 0; step /= 2) {
    const float other = __shfl_xor_sync(kAllLanes, largest, step);
    largest = other > largest ? other : largest;
  }
  const float scale = __fdiv_rn(largest, 127.0f);
  const float inverse = scale < 0x1p-120f ? 0.0f : __fdiv_rn(1.0f, scale);
  for (std::uint32_t c = lane; c < dim16; c += kWarpThreads) {
    const float rounded = (f(c) * inverse + kRound) - kRound;
    code[c] = static_cast<std::int8_t>(static_cast<int>(rounded));
  }
  return scale;
}

// All threads of the block must call it.
__device__ inline void code_queries(const Settings &s, const float *queries, bool squared, CodedQueries *coded) {
  for (std::uint32_t g = threadIdx.x / kWarpThreads; g < s.group; g += blockDim.x / kWarpThreads) {
    const float *query = queries + g * s.dim16;
    const float of_code = code_row(s.dim16, coded->code + g * s.dim16, [&](std::uint32_t c) { return query[c]; });
    const float of_factor = code_row(s.dim16, coded->factor + g * s.dim16, [&](std::uint32_t c) {
      return squared ? query[c] * query[c] : fabsf(query[c]);
    });
    if (threadIdx.x % kWarpThreads != 0) continue;
    coded->code_scale[g] = of_code;
    coded->factor_scale[g] = squared ? of_factor * kSquareUnit : of_factor;
  }
  __syncthreads();
}

// Squares of four codes, to the nearest multiple of kSquareUnit.
__device__ inline unsigned square4(unsigned x) {
  unsigned out = 0;
#pragma unroll
  for (int shift = 0; shift < 32; shift += 8) {
    const int one = static_cast<std::int8_t>(x >> shift & 0xff);
    out |= static_cast<unsigned>((one * one + kSquareUnit / 2) >> kSquareBits) << shift;
  }
  return out;
}

// Sums over a quad's threads of two pages and four queries: thread q gets queries 2 (q % 2) and the next of page q / 2.
__device__ inline void sums_of_quad(const int (&part)[2][kQueries], int (&sum)[kQueriesEach]) {
  const bool high = (threadIdx.x & 2) != 0, odd = (threadIdx.x & 1) != 0;
#pragma unroll
  for (int i = 0; i < kQueriesEach; ++i) {
    const int low = kept_sum(high ? part[1][i] : part[0][i], high ? part[0][i] : part[1][i], 2);
    const int up = kept_sum(high ? part[1][2 + i] : part[0][2 + i], high ? part[0][2 + i] : part[1][2 + i], 2);
    sum[i] = kept_sum(odd ? up : low, odd ? low : up, 1);
  }
}

// 16 codes.
struct Codes16 {
  unsigned word[4];
};
__device__ inline Codes16 load16(const std::int8_t *p) {
  const uint4 x = *reinterpret_cast<const uint4 *>(p);
  return Codes16{{x.x, x.y, x.z, x.w}};
}

// As page_figures, for queries [first_query, first_query + kQueries) of the group.
template <bool Squared>
__device__ inline void coded_figures(const DeviceHead &head, const PageQuad &quad, std::uint32_t pages, const CodedQueries &coded,
                                     std::uint32_t first_query, float (&dot)[kQueriesEach], float (&spread)[kQueriesEach]) {
  const UnitOffsets &at = head.image.at;
  const std::uint32_t page[2] = {min(quad.first, pages - 1), min(quad.first + 8, pages - 1)};
  const std::uint32_t dim16 = head.settings().dim16;
  const auto *means = head.at<std::int8_t>(at.key_mean), *deviations = head.at<std::int8_t>(at.key_std);
  int dots[2][kQueries] = {}, spreads[2][kQueries] = {};
  for (std::uint32_t c = threadIdx.x % 4 * 16; c < dim16; c += 64) {
    Codes16 mean[2], deviation[2];
#pragma unroll
    for (int p = 0; p < 2; ++p) {
      mean[p] = load16(means + std::uint64_t{page[p]} * dim16 + c);
      deviation[p] = load16(deviations + std::uint64_t{page[p]} * dim16 + c);
#pragma unroll
      for (int w = 0; w < 4; ++w) deviation[p].word[w] = Squared ? square4(deviation[p].word[w]) : deviation[p].word[w];
    }
#pragma unroll
    for (int q = 0; q < kQueries; ++q) {
      const std::uint32_t from = (first_query + static_cast<std::uint32_t>(q)) * dim16 + c;
      const Codes16 code = load16(coded.code + from), factor = load16(coded.factor + from);
#pragma unroll
      for (int p = 0; p < 2; ++p) {
#pragma unroll
        for (int w = 0; w < 4; ++w) {
          dots[p][q] = __dp4a(static_cast<int>(mean[p].word[w]), static_cast<int>(code.word[w]), dots[p][q]);
          if constexpr (Squared) {  // one may be 128, that of -128; factors are not negative
            spreads[p][q] = static_cast<int>(__dp4a(deviation[p].word[w], factor.word[w], static_cast<unsigned>(spreads[p][q])));
          } else {
            spreads[p][q] = __dp4a(static_cast<int>(deviation[p].word[w]), static_cast<int>(factor.word[w]), spreads[p][q]);
          }
        }
      }
    }
  }
  int dot_sum[kQueriesEach], spread_sum[kQueriesEach];
  sums_of_quad(dots, dot_sum);
  sums_of_quad(spreads, spread_sum);
  const std::uint32_t own = min(quad.own(), pages - 1);
  const float mean_scale = head.at<float>(at.key_mean_scale)[own], deviation_scale = head.at<float>(at.key_std_scale)[own];
#pragma unroll
  for (int i = 0; i < kQueriesEach; ++i) {
    const std::uint32_t query = min(first_query + quad.query(i), head.settings().group - 1);
    dot[i] = static_cast<float>(dot_sum[i]) * mean_scale * coded.code_scale[query];
    spread[i] = static_cast<float>(spread_sum[i]) * deviation_scale;
    if (Squared) spread[i] = spread[i] * deviation_scale;
    spread[i] = spread[i] * coded.factor_scale[query];
  }
}

}  // namespace
}  // namespace kvsift

// What queries make of page moments: a pair of neighbouring threads for each page.
#pragma once

#include "cuda/policy/image.cuh"

namespace kvsift {
namespace {

constexpr int kQueries = 4;  // whose sums a thread holds at a time

// Half of the lanes of a page: the even thread of the pair has lanes 0 .. 7, the odd one 8 .. 15.
struct PageSums {
  float dot[kQueries][8], spread[kQueries][8];
};

__device__ inline void clear(PageSums *sums) {
#pragma unroll
  for (int q = 0; q < kQueries; ++q) {
#pragma unroll
    for (int i = 0; i < 8; ++i) sums->dot[q][i] = sums->spread[q][i] = 0.0f;
  }
}

// sum q m, and sum |q| d or sum q^2 d^2.
template <class T, bool Squared>
__device__ inline void add_moments(const T *mean, const T *deviation, const float *queries, std::uint32_t dim16,
                                   std::uint32_t half, PageSums *sums) {
#pragma unroll 2
  for (std::uint32_t c = half * 8; c < dim16; c += 16) {
    float m[8], d[8];
    load8(mean + c, m);
    load8(deviation + c, d);
#pragma unroll
    for (int i = 0; i < 8; ++i) d[i] = Squared ? d[i] * d[i] : d[i];
#pragma unroll
    for (int q = 0; q < kQueries; ++q) {
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        const float x = queries[q * dim16 + c + i];
        sums->dot[q][i] = __fmaf_rn(x, m[i], sums->dot[q][i]);
        sums->spread[q][i] = __fmaf_rn(Squared ? x * x : fabsf(x), d[i], sums->spread[q][i]);
      }
    }
  }
}

struct Page {
  std::uint32_t number, tokens;
};

__device__ inline Page page_at(std::uint32_t number, std::uint32_t tokens, std::uint32_t page_tokens) {
  return Page{number, number == tokens / page_tokens ? tokens % page_tokens : page_tokens};
}

// Of one page and kQueries queries, both threads of the pair: dot and spread with the rows' scales.
template <class T, bool Squared>
__device__ inline void page_figures(const DeviceHead &head, std::uint32_t page, bool active, const float *queries,
                                    float (&dot)[kQueries], float (&spread)[kQueries]) {
  const UnitOffsets &at = head.image.at;
  const std::uint64_t row = std::uint64_t{page} * head.settings().dim16;
  PageSums sums;
  clear(&sums);
  float mean_scale = 1.0f, deviation_scale = 1.0f;
  if (active) {
    add_moments<T, Squared>(head.at<T>(at.key_mean) + row, head.at<T>(at.key_std) + row, queries, head.settings().dim16,
                            threadIdx.x % 2, &sums);
    if (sizeof(T) == 1) mean_scale = head.at<float>(at.key_mean_scale)[page];
    if (sizeof(T) == 1) deviation_scale = head.at<float>(at.key_std_scale)[page];
  }
#pragma unroll
  for (int q = 0; q < kQueries; ++q) {
    dot[q] = tree16_of_pair(sums.dot[q], kAllLanes) * mean_scale;
    spread[q] = tree16_of_pair(sums.spread[q], kAllLanes) * deviation_scale;
    if (Squared) spread[q] = spread[q] * deviation_scale;
  }
}

__device__ inline float page_score(float scale, float dot, float spread) { return scale * __fmaf_rn(0.5f, spread, dot); }

__device__ inline float tail_logit(float scale, const Page &page, float dot, float spread) {
  const float half = 0.5f * (scale * scale), log_tokens = log1(static_cast<float>(page.tokens));
  return __fmaf_rn(scale, dot, log1(__fmaf_rn(half, spread, 1.0f)) + log_tokens);
}

// What the page's largest logit is likely to be.
__device__ inline float page_peak(float scale, const Page &page, float dot, float spread) {
  const float deviations = __fsqrt_rn(2 * log1(static_cast<float>(page.tokens)));
  return page_score(scale, dot, 2 * deviations * __fsqrt_rn(spread));
}

}  // namespace
}  // namespace kvsift

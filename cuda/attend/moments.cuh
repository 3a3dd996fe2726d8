// What queries make of page moments: four neighbouring threads take two pages, a warp 16.
#pragma once

#include "cuda/attend/quad.cuh"
#include "cuda/policy/image.cuh"

namespace kvsift {
namespace {

constexpr int kQueries = 4;      // whose sums are made at a time
constexpr int kQueriesEach = 2;  // whose sums a thread gets in the end

// A quarter of the lanes of two pages, for kQueries queries.
struct PageLanes {
  float dot[2][kQueries][4], spread[2][kQueries][4];
};

__device__ inline void clear(PageLanes *lanes) {
#pragma unroll
  for (int p = 0; p < 2; ++p) {
#pragma unroll
    for (int q = 0; q < kQueries; ++q) {
#pragma unroll
      for (int i = 0; i < 4; ++i) lanes->dot[p][q][i] = lanes->spread[p][q][i] = 0.0f;
    }
  }
}

// The thread's pages and, once sums are made, its own page and queries of the kQueries.
struct PageQuad {
  std::uint32_t first;  // and first + 8

  __device__ std::uint32_t own() const { return first + threadIdx.x % 4 / 2 * 8; }
  __device__ std::uint32_t query(int i) const { return threadIdx.x % 2 * 2 + static_cast<std::uint32_t>(i); }
};

// The quad's pages in stretch `stretch` of kPagesOfBlock pages.
__device__ inline PageQuad quad_of(std::uint32_t stretch) {
  return PageQuad{stretch + threadIdx.x / kWarpThreads * 16 + threadIdx.x % kWarpThreads / 4};
}

// Rows of `a` and `b` of both pages, four elements at a time: add(lanes, page, query, x, a, b) for each.
template <class Add>
__device__ inline void walk_pages(const F16 *a, const F16 *b, const std::uint32_t (&page)[2], const float *queries,
                                  std::uint32_t dim16, PageLanes *lanes, Add add) {
  by_elements<8>(dim16, [&](std::uint32_t c) {
    float of_a[2][4], of_b[2][4];
#pragma unroll
    for (int p = 0; p < 2; ++p) {
      load4(a + std::uint64_t{page[p]} * dim16 + c, of_a[p]);
      load4(b + std::uint64_t{page[p]} * dim16 + c, of_b[p]);
    }
#pragma unroll
    for (int q = 0; q < kQueries; ++q) {
      float x[4];
      load4(queries + q * dim16 + c, x);
#pragma unroll
      for (int p = 0; p < 2; ++p) {
#pragma unroll
        for (int i = 0; i < 4; ++i) add(&lanes->dot[p][q][i], &lanes->spread[p][q][i], x[i], of_a[p][i], of_b[p][i]);
      }
    }
  });
}

struct Page {
  std::uint32_t number, tokens;
};

__device__ inline Page page_at(std::uint32_t number, std::uint32_t tokens, std::uint32_t page_tokens) {
  return Page{number, number == tokens / page_tokens ? tokens % page_tokens : page_tokens};
}

// Of the thread's own page and its queries, the pages float16: dot, and sum |q| d or sum q^2 d^2. Pages from `pages` on are
// read as the last one.
template <bool Squared>
__device__ inline void page_figures(const DeviceHead &head, const PageQuad &quad, std::uint32_t pages, const float *queries,
                                    float (&dot)[kQueriesEach], float (&spread)[kQueriesEach]) {
  const UnitOffsets &at = head.image.at;
  const std::uint32_t page[2] = {min(quad.first, pages - 1), min(quad.first + 8, pages - 1)};
  PageLanes lanes;
  clear(&lanes);
  walk_pages(head.at<F16>(at.key_mean), head.at<F16>(at.key_std), page, queries, head.settings().dim16, &lanes,
             [](float *dot, float *spread, float x, float m, float d) {
               *dot = __fmaf_rn(x, m, *dot);
               *spread = __fmaf_rn(Squared ? x * x : fabsf(x), Squared ? d * d : d, *spread);
             });
  sums_of_two(lanes.dot, dot);
  sums_of_two(lanes.spread, spread);
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

#include "cuda/methods/page_scores.h"

#include "cuda/attend/moments.cuh"
#include "cuda/policy/queries.cuh"
#include "cuda/policy/step.cuh"

namespace kvsift {
namespace {

// Where the figures of kQueries queries go.
struct ScoreRows {
  float *scores, *logits;
  std::uint64_t stride;
  std::uint32_t queries;  // in use
};

template <class T>
__device__ inline void score_moments(const DeviceHead &head, const Page &page, bool active, const float *queries,
                                     const ScoreRows &rows) {
  const Settings &s = head.settings();
  float dot[kQueries], spread[kQueries];
  if (s.value_moments) {
    page_figures<T, true>(head, page.number, active, queries, dot, spread);
  } else {
    page_figures<T, false>(head, page.number, active, queries, dot, spread);
  }
#pragma unroll
  for (int q = 0; q < kQueries; ++q) {
    if (!active || threadIdx.x % 2 != 0 || static_cast<std::uint32_t>(q) >= rows.queries) continue;
    const std::uint64_t to = q * rows.stride + page.number;
    if (s.value_moments) {
      rows.logits[to] = tail_logit(s.scale, page, dot[q], spread[q]);
      rows.scores[to] = page_peak(s.scale, page, dot[q], spread[q]);
    } else {
      rows.scores[to] = page_score(s.scale, dot[q], spread[q]);
    }
  }
}

// The tail's logits alone, for methods that rank by something else.
template <class T>
__device__ inline void leave_logits(const DeviceHead &head, const Page &page, bool active, const float *queries,
                                    const ScoreRows &rows) {
  float dot[kQueries], spread[kQueries];
  page_figures<T, true>(head, page.number, active, queries, dot, spread);
#pragma unroll
  for (int q = 0; q < kQueries; ++q) {
    if (!active || threadIdx.x % 2 != 0 || static_cast<std::uint32_t>(q) >= rows.queries) continue;
    rows.logits[q * rows.stride + page.number] = tail_logit(head.settings().scale, page, dot[q], spread[q]);
  }
}

// Page statistics for a late check, in the spare rows.
template <class T>
__device__ inline void leave_scores(const DeviceHead &head, const Page &page, bool active, const float *queries,
                                    const ScoreRows &rows) {
  float dot[kQueries], spread[kQueries];
  page_figures<T, false>(head, page.number, active, queries, dot, spread);
#pragma unroll
  for (int q = 0; q < kQueries; ++q) {
    if (!active || threadIdx.x % 2 != 0 || static_cast<std::uint32_t>(q) >= rows.queries) continue;
    rows.logits[q * rows.stride + page.number] = page_score(head.settings().scale, dot[q], spread[q]);
  }
}

// sum max(q, 0) high, and sum min(q, 0) low.
__device__ inline void add_bounds(const F16 *low, const F16 *high, const float *queries, std::uint32_t dim16, PageSums *sums) {
#pragma unroll 2
  for (std::uint32_t c = threadIdx.x % 2 * 8; c < dim16; c += 16) {
    float l[8], h[8];
    load8(low + c, l);
    load8(high + c, h);
#pragma unroll
    for (int q = 0; q < kQueries; ++q) {
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        const float x = queries[q * dim16 + c + i];
        sums->dot[q][i] = __fmaf_rn(x > 0.0f ? x : 0.0f, h[i], sums->dot[q][i]);
        sums->spread[q][i] = __fmaf_rn(x < 0.0f ? x : 0.0f, l[i], sums->spread[q][i]);
      }
    }
  }
}

__device__ inline void score_bounds(const DeviceHead &head, const Page &page, bool active, const float *queries,
                                    const ScoreRows &rows) {
  const Settings &s = head.settings();
  const std::uint64_t row = std::uint64_t{page.number} * s.dim16;
  PageSums sums;
  clear(&sums);
  if (active) {
    add_bounds(head.at<F16>(head.image.at.key_min) + row, head.at<F16>(head.image.at.key_max) + row, queries, s.dim16, &sums);
  }
#pragma unroll
  for (int q = 0; q < kQueries; ++q) {
    const float high = tree16_of_pair(sums.dot[q], kAllLanes) * s.scale;
    const float low = tree16_of_pair(sums.spread[q], kAllLanes) * s.scale;
    if (!active || threadIdx.x % 2 != 0 || static_cast<std::uint32_t>(q) >= rows.queries) continue;
    rows.scores[q * rows.stride + page.number] = high + low;
  }
}

// All pages; the queries a few at a time.
template <auto kScore>
__device__ inline void score_pages(const PageScoreArgs &args) {
  // Where the group is no multiple of kQueries, rows behind its own are read and what comes of them is dropped.
  __shared__ float queries[KVSIFT_MAX_GROUP * KVSIFT_MAX_HEAD_DIM];
  const DeviceHead head = head_of(args.call);
  const Settings &s = args.call.image.s;
  const std::uint32_t tokens = tokens_of(args.call);
  if (step_of(args.call, tokens, false).everything) return;
  widen_queries(args.call, head, args.query, queries, blockIdx.x == 0);
  const Scratch scratch = head.scratch();
  const std::uint32_t pages = blocks_of(tokens, s.c.page_tokens);
  for (std::uint32_t first = blockIdx.x * kPagesOfBlock; first < pages; first += gridDim.x * kPagesOfBlock) {
    const Page page = page_at(first + threadIdx.x / 2, tokens, s.c.page_tokens);
    for (std::uint32_t q = 0; q < s.group; q += kQueries) {
      const ScoreRows rows{scratch.scores + q * scratch.stride, scratch.spare + q * scratch.stride, scratch.stride, s.group - q};
      kScore(head, page, page.number < pages, queries + q * s.dim16, rows);
    }
  }
}

}  // namespace
}  // namespace kvsift

using namespace kvsift;

KVSIFT_KERNEL(page_scores_f16, PageScoreArgs, kScoreThreads) { score_pages<score_moments<F16>>(args); }

KVSIFT_KERNEL(page_scores_i8, PageScoreArgs, kScoreThreads) { score_pages<score_moments<std::int8_t>>(args); }

KVSIFT_KERNEL(tail_logits_f16, PageScoreArgs, kScoreThreads) { score_pages<leave_logits<F16>>(args); }

KVSIFT_KERNEL(tail_logits_i8, PageScoreArgs, kScoreThreads) { score_pages<leave_logits<std::int8_t>>(args); }

KVSIFT_KERNEL(late_scores_f16, PageScoreArgs, kScoreThreads) { score_pages<leave_scores<F16>>(args); }

KVSIFT_KERNEL(late_scores_i8, PageScoreArgs, kScoreThreads) { score_pages<leave_scores<std::int8_t>>(args); }

KVSIFT_KERNEL(quest_scores, PageScoreArgs, kScoreThreads) { score_pages<score_bounds>(args); }

#include "cuda/methods/page_scores.h"

#include "cuda/methods/codes.cuh"
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

// The group's queries in shared memory. Where the group is no multiple of kQueries, rows behind its own are read and what
// comes of them is dropped.
struct ScoreQueries {
  float plain[KVSIFT_MAX_GROUP * KVSIFT_MAX_HEAD_DIM];
};
struct ScoreCodes : ScoreQueries {
  CodedQueries coded;
};

// What a thread makes of a stretch of pages, for kQueries queries from `first` on.
template <class Queries>
struct ScoreWork {
  const DeviceHead &head;
  PageQuad quad;
  std::uint32_t tokens, pages;
  const Queries &queries;
  std::uint32_t first;
  ScoreRows rows;

  __device__ const Settings &settings() const { return head.settings(); }
  __device__ const float *plain() const { return queries.plain + first * settings().dim16; }
  // put(page, i, place in the rows) for the thread's page and queries.
  template <class Put>
  __device__ void each(Put put) const {
    const Page page = page_at(quad.own(), tokens, settings().c.page_tokens);
#pragma unroll
    for (int i = 0; i < kQueriesEach; ++i) {
      if (page.number < pages && quad.query(i) < rows.queries) put(page, i, quad.query(i) * rows.stride + page.number);
    }
  }
};

template <bool Squared>
__device__ inline void figures(const ScoreWork<ScoreQueries> &work, float (&dot)[kQueriesEach], float (&spread)[kQueriesEach]) {
  page_figures<Squared>(work.head, work.quad, work.pages, work.plain(), dot, spread);
}
template <bool Squared>
__device__ inline void figures(const ScoreWork<ScoreCodes> &work, float (&dot)[kQueriesEach], float (&spread)[kQueriesEach]) {
  coded_figures<Squared>(work.head, work.quad, work.pages, work.queries.coded, work.first, dot, spread);
}

// What page statistics rank by, and with the moments tail its logits.
struct PageScores {
  __device__ static bool squared(const Settings &s) { return s.value_moments; }
  template <class Queries>
  __device__ static void score(const ScoreWork<Queries> &work) {
    float dot[kQueriesEach], spread[kQueriesEach];
    const float scale = work.settings().scale;
    if (work.settings().value_moments) {
      figures<true>(work, dot, spread);
      work.each([&](const Page &page, int i, std::uint64_t to) {
        work.rows.logits[to] = tail_logit(scale, page, dot[i], spread[i]);
        work.rows.scores[to] = page_peak(scale, page, dot[i], spread[i]);
      });
    } else {
      figures<false>(work, dot, spread);
      work.each([&](const Page &, int i, std::uint64_t to) { work.rows.scores[to] = page_score(scale, dot[i], spread[i]); });
    }
  }
};

// The tail's logits alone, for methods that rank by something else.
struct TailLogits {
  __device__ static bool squared(const Settings &) { return true; }
  template <class Queries>
  __device__ static void score(const ScoreWork<Queries> &work) {
    float dot[kQueriesEach], spread[kQueriesEach];
    figures<true>(work, dot, spread);
    work.each([&](const Page &page, int i, std::uint64_t to) {
      work.rows.logits[to] = tail_logit(work.settings().scale, page, dot[i], spread[i]);
    });
  }
};

// Page statistics for a late check, in the spare rows.
struct LateScores {
  __device__ static bool squared(const Settings &) { return false; }
  template <class Queries>
  __device__ static void score(const ScoreWork<Queries> &work) {
    float dot[kQueriesEach], spread[kQueriesEach];
    figures<false>(work, dot, spread);
    work.each([&](const Page &, int i, std::uint64_t to) {
      work.rows.logits[to] = page_score(work.settings().scale, dot[i], spread[i]);
    });
  }
};

// sum max(q, 0) high, and sum min(q, 0) low.
__device__ inline void score_bounds(const ScoreWork<ScoreQueries> &work) {
  const Settings &s = work.settings();
  const UnitOffsets &at = work.head.image.at;
  const std::uint32_t page[2] = {min(work.quad.first, work.pages - 1), min(work.quad.first + 8, work.pages - 1)};
  PageLanes lanes;
  clear(&lanes);
  walk_pages(work.head.at<F16>(at.key_max), work.head.at<F16>(at.key_min), page, work.plain(), s.dim16, &lanes,
             [](float *high, float *low, float x, float h, float l) {
               *high = __fmaf_rn(x > 0.0f ? x : 0.0f, h, *high);
               *low = __fmaf_rn(x < 0.0f ? x : 0.0f, l, *low);
             });
  float high[kQueriesEach], low[kQueriesEach];
  sums_of_two(lanes.dot, high);
  sums_of_two(lanes.spread, low);
  work.each([&](const Page &, int i, std::uint64_t to) { work.rows.scores[to] = high[i] * s.scale + low[i] * s.scale; });
}

// Quest.
struct Bounds {
  __device__ static bool squared(const Settings &) { return false; }
  __device__ static void score(const ScoreWork<ScoreQueries> &work) { score_bounds(work); }
};

__device__ inline void prepare(const Settings &, bool, ScoreQueries *) {}
__device__ inline void prepare(const Settings &s, bool squared, ScoreCodes *queries) {
  code_queries(s, queries->plain, squared, &queries->coded);
}

// All pages; the queries a few at a time.
template <class Scores, class Queries>
__device__ inline void score_pages(const PageScoreArgs &args) {
  __shared__ Queries queries;
  const DeviceHead head = head_of(args.call);
  const Settings &s = args.call.image.s;
  const std::uint32_t tokens = tokens_of(args.call);
  if (step_of(args.call, tokens, false).everything) return;
  widen_queries(args.call, head, args.query, queries.plain, blockIdx.x == 0);
  prepare(s, Scores::squared(s), &queries);
  const Scratch scratch = head.scratch();
  const std::uint32_t pages = blocks_of(tokens, s.c.page_tokens);
  for (std::uint32_t first = blockIdx.x * kPagesOfBlock; first < pages; first += gridDim.x * kPagesOfBlock) {
    for (std::uint32_t q = 0; q < s.group; q += kQueries) {
      const ScoreRows rows{scratch.scores + q * scratch.stride, scratch.spare + q * scratch.stride, scratch.stride, s.group - q};
      Scores::score(ScoreWork<Queries>{head, quad_of(first), tokens, pages, queries, q, rows});
    }
  }
}

}  // namespace
}  // namespace kvsift

using namespace kvsift;

KVSIFT_KERNEL(page_scores_f16, PageScoreArgs, kScoreThreads) { score_pages<PageScores, ScoreQueries>(args); }

KVSIFT_KERNEL(page_scores_i8, PageScoreArgs, kScoreThreads) { score_pages<PageScores, ScoreCodes>(args); }

KVSIFT_KERNEL(tail_logits_f16, PageScoreArgs, kScoreThreads) { score_pages<TailLogits, ScoreQueries>(args); }

KVSIFT_KERNEL(tail_logits_i8, PageScoreArgs, kScoreThreads) { score_pages<TailLogits, ScoreCodes>(args); }

KVSIFT_KERNEL(late_scores_f16, PageScoreArgs, kScoreThreads) { score_pages<LateScores, ScoreQueries>(args); }

KVSIFT_KERNEL(late_scores_i8, PageScoreArgs, kScoreThreads) { score_pages<LateScores, ScoreCodes>(args); }

KVSIFT_KERNEL(quest_scores, PageScoreArgs, kScoreThreads) { score_pages<Bounds, ScoreQueries>(args); }

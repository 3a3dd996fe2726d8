#include <cmath>

#include "attend/attend.h"
#include "kernels/one.h"

namespace kvsift {

namespace {

// Figures of a group's pages that are worked on at a time: as many as stay near.
constexpr std::uint32_t kFigures = 4096;

PageStatistics *statistics_of(const Kernels &kernels, const Moments &moments) {
  if (moments.type != KVSIFT_I8) return kernels.page.statistics;
#if defined(__x86_64__)
  if (moments.multiplies_int8) return coded_statistics_vnni;
#endif
  return kernels.page.coded_statistics;
}

// Pages from `page` on that hold the same number of tokens, at most `limit`; *tokens is that
// number.
std::uint32_t alike(const Moments &moments, std::uint32_t page, std::uint32_t limit,
                    std::uint32_t *tokens) {
  const std::uint32_t full = moments.tokens / moments.page_tokens;
  if (page >= full) {
    *tokens = moments.tokens - page * moments.page_tokens;
    return 1;
  }
  *tokens = moments.page_tokens;
  return limit < full - page ? limit : full - page;
}

// The largest of n normal variables lies about so many deviations above their mean.
float deviations_of_largest(float log_n) { return std::sqrt(2 * log_n); }

// Tail logits and peaks (may be null), or page statistics.
void page_figures(const Kernels &kernels, const float *queries, std::uint32_t group, float scale,
                  const Moments &moments, std::uint32_t first, std::uint32_t count, bool tail,
                  float *out, float *peaks, std::size_t stride) {
  float dot[kFigures], spread[kFigures];
  const std::uint32_t at_once = kFigures / group / kLanes * kLanes;
  PageStatistics *statistics = statistics_of(kernels, moments);
  for (std::uint32_t done = 0; done < count;) {
    const std::uint32_t page = first + done, left = count - done;
    std::uint32_t tokens;
    const std::uint32_t n = alike(moments, page, left < at_once ? left : at_once, &tokens);
    statistics(queries, group, moment_rows(moments, moments.mean, moments.mean_scale, page),
               moment_rows(moments, moments.deviation, moments.deviation_scale, page), n, left - n,
               moments.dim, tail, dot, spread, at_once);
    const float log_tokens = log1(static_cast<float>(tokens));
    for (std::uint32_t g = 0; g < group; ++g) {
      const std::size_t from = std::size_t{g} * at_once, to = g * stride + done;
      if (tail) {
        kernels.page.tail_logits(dot + from, spread + from, n, scale, log_tokens, out + to);
        if (peaks == nullptr) continue;
        kernels.page.peaks(dot + from, spread + from, n, scale, deviations_of_largest(log_tokens), peaks + to);
      } else {
        kernels.page.scores(dot + from, spread + from, n, scale, out + to);
      }
    }
    done += n;
  }
}

}  // namespace

void moment_logits(const Kernels &kernels, const float *queries, std::uint32_t group, float scale,
                   const Moments &moments, std::uint32_t first, std::uint32_t count, float *logits,
                   float *peaks, std::size_t stride) {
  page_figures(kernels, queries, group, scale, moments, first, count, true, logits, peaks, stride);
}

void moment_scores(const Kernels &kernels, const float *queries, std::uint32_t group, float scale,
                   const Moments &moments, std::uint32_t first, std::uint32_t count, float *scores,
                   std::size_t stride) {
  page_figures(kernels, queries, group, scale, moments, first, count, false, scores, nullptr,
               stride);
}

}  // namespace kvsift

#include "attend/attend.h"
#include "kernels/one.h"

namespace kvsift {

namespace {

constexpr std::uint32_t kPagesAtOnce = 64;

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

}  // namespace

void moment_logits(const Kernels &kernels, const float *queries, std::uint32_t group, float scale,
                   const Moments &moments, std::uint32_t first, std::uint32_t count, float *logits,
                   float *scores, std::size_t stride) {
  float dot[KVSIFT_MAX_GROUP * kPagesAtOnce], quadratic[KVSIFT_MAX_GROUP * kPagesAtOnce];
  float absolute[KVSIFT_MAX_GROUP * kPagesAtOnce];
  for (std::uint32_t done = 0; done < count;) {
    const std::uint32_t page = first + done, left = count - done;
    std::uint32_t tokens;
    const std::uint32_t n =
        alike(moments, page, left < kPagesAtOnce ? left : kPagesAtOnce, &tokens);
    kernels.page.statistics(queries, group,
                            moment_rows(moments, moments.mean, moments.mean_scale, page),
                            moment_rows(moments, moments.deviation, moments.deviation_scale, page),
                            n, left - n, moments.dim, dot, logits == nullptr ? nullptr : quadratic,
                            scores == nullptr ? nullptr : absolute, kPagesAtOnce);
    const float log_tokens = log1(static_cast<float>(tokens));
    for (std::uint32_t g = 0; g < group; ++g) {
      const std::size_t from = g * kPagesAtOnce, to = g * stride + done;
      if (logits != nullptr)
        kernels.page.tail_logits(dot + from, quadratic + from, n, scale, log_tokens, logits + to);
      if (scores != nullptr)
        kernels.page.scores(dot + from, absolute + from, n, scale, scores + to);
    }
    done += n;
  }
}

}  // namespace kvsift

// Graded BalanceKV: plain halving treats all tokens alike, though a few carry most of the
// attention. Here the tokens that the last prompt queries attended to most are kept as they are,
// and every other token is halved among its like: g times where its importance x is about 4^-g of
// theirs, so that it survives at a rate near sqrt(x). On recorded attention that rate did better
// than x, which spends all on a few, and than flatter ones.
#include <algorithm>

#include "balance/compress.h"

namespace kvsift {

namespace {

constexpr std::int32_t kStepsPerHalving = 64;
constexpr std::int32_t kMostHalvings = 28;

// Halvings of a token `steps` down from full importance, when `keep` steps down still means none.
std::uint32_t halvings_of(std::int32_t steps, std::int32_t keep, std::uint32_t most) {
  const std::int32_t down = steps - keep + kStepsPerHalving / 2;
  if (down < kStepsPerHalving) return 0;
  const auto halvings = static_cast<std::uint32_t>(down / kStepsPerHalving);
  return halvings < most ? halvings : most;
}

// How many tokens have each grade, and what grades they end up in.
class GradeCounts {
 public:
  GradeCounts() {
    for (std::int32_t g = 0; g <= kMostHalvings; ++g) final_[g] = g;
  }
  void add(std::uint32_t grade) { ++count_[grade]; }

  // A grade too small to keep one of its tokens joins the one below: no token goes without a weight. Returns how many stay.
  std::uint32_t join_small() {
    std::uint32_t stay = 0;
    for (std::int32_t g = kMostHalvings; g > 0; --g) {
      stay += count_[g] >> g;
      if (count_[g] >> g == 0) join_below(g);
    }
    return stay + count_[0];
  }
  std::int32_t final_grade(std::uint32_t grade) const { return final_[grade]; }

 private:
  void join_below(std::int32_t grade) {
    count_[grade - 1] += count_[grade];
    for (std::int32_t g = grade; g <= kMostHalvings && final_[g] == grade; ++g) final_[g] = grade - 1;
  }

  std::uint32_t count_[kMostHalvings + 1] = {};
  std::int32_t final_[kMostHalvings + 1];
};

class Grades {
 public:
  Grades(const CompressJob &job)
      : weight_of_(job.places.weight_of.in(job.scratch)),
        steps_(job.places.steps.in(job.scratch)),
        tokens_(job.range.end - job.range.begin),
        most_(std::min<std::uint32_t>(job.plan.c.halvings + 4, kMostHalvings)) {
    // log2(1 / sqrt(x)) in steps, by way of the weights' buffer, which is free until halving.
    float *log = job.places.weight.in(job.scratch);
    for (std::uint32_t i = 0; i < tokens_; ++i) {
      const float x = job.plan.c.importance[job.range.begin + i];
      log[i] = x > 1e-30f ? x : 1e-30f;
    }
    job.kernels.array.log(log, log, tokens_);
    constexpr float kScale = -0.5f * 1.44269504f * kStepsPerHalving;
    for (std::uint32_t i = 0; i < tokens_; ++i) {
      // x is at least 1e-30, and at most a finite float.
      steps_[i] = static_cast<std::int16_t>(log[i] * kScale);
    }
    rest_ = 0;
    for (std::uint32_t i = 0; i < tokens_; ++i) rest_ += weight_of_[i] == 0.0f;
  }

  std::uint32_t rest() const { return rest_; }
  std::uint32_t most() const { return most_; }

  // Puts each token's halvings in the place of its steps, -1 for guarded ones.
  const std::int16_t *settle(std::int32_t keep) {
    GradeCounts counts = counts_at(keep);
    counts.join_small();
    for (std::uint32_t i = 0; i < tokens_; ++i) {
      const std::int32_t grade = counts.final_grade(halvings_of(steps_[i], keep, most_));
      steps_[i] = open(i) ? static_cast<std::int16_t>(grade) : std::int16_t{-1};
    }
    return steps_;
  }

  // The most generous limit at which no more than `budget` tokens stay.
  std::int32_t limit(std::uint32_t budget) const {
    std::int32_t low = -4096 - (kMostHalvings + 1) * kStepsPerHalving,
                 high = 4096 + kStepsPerHalving;
    while (high - low > 1) {
      const std::int32_t middle = low + (high - low) / 2;
      (counts_at(middle).join_small() <= budget ? low : high) = middle;
    }
    return low;
  }

 private:
  bool open(std::uint32_t i) const { return weight_of_[i] == 0.0f; }

  GradeCounts counts_at(std::int32_t keep) const {
    GradeCounts counts;
    for (std::uint32_t i = 0; i < tokens_; ++i)
      if (open(i)) counts.add(halvings_of(steps_[i], keep, most_));
    return counts;
  }

  const float *weight_of_;
  std::int16_t *steps_;
  std::uint32_t tokens_, most_, rest_;
};

// The open tokens of one grade to the front of the index.
std::uint32_t gather(const CompressJob &job, const std::int16_t *grade, std::uint32_t wanted) {
  std::uint32_t *index = job.places.index.in(job.scratch), count = 0;
  float *weight = job.places.weight.in(job.scratch);
  for (std::uint32_t i = 0; i < job.range.end - job.range.begin; ++i) {
    if (grade[i] != static_cast<std::int16_t>(wanted)) continue;
    index[count] = job.range.begin + i;
    weight[count++] = 1.0f;
  }
  return count;
}

}  // namespace

std::uint32_t compress_graded(const CompressJob &job) {
  Grades grades(job);
  const std::uint32_t budget = grades.rest() >> job.plan.c.halvings;
  if (budget == 0) return 0;
  const std::int16_t *grade = grades.settle(grades.limit(budget));
  std::uint32_t kept = 0;
  for (std::uint32_t g = 0; g <= grades.most(); ++g) {
    const std::uint32_t count = gather(job, grade, g), stay = count >> g;
    if (stay == 0) continue;
    halve_times(job, count, g, nullptr);
    settle_weights(job, stay, count);
    kept += stay;
  }
  return kept;
}

}  // namespace kvsift

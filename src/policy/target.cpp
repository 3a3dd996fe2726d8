#include "policy/target.h"

#include <algorithm>

#include "policy/top_blocks.h"

namespace kvsift {
namespace {

// Shares of scores[begin .. end), 64 at a time by the fixed tree: in an order that a GPU can keep.
double mass_of(const Kernels &k, ScoreKind kind, float max, const float *scores, std::uint32_t begin,
               std::uint32_t end) {
  float part[64];
  double mass = 0;
  while (begin < end) {
    const std::uint32_t count = end - begin < 64 ? end - begin : 64;
    for (std::uint32_t i = 0; i < count; ++i) {
      const float x = scores[begin + i];
      part[i] = kind == ScoreKind::kLog || x > 0 ? x : 0.0f;
    }
    const float sum = kind == ScoreKind::kLog ? k.attention.softmax(part, count, max) : k.array.sum(part, count);
    mass += static_cast<double>(sum);
    begin += count;
  }
  return mass;
}

}  // namespace

std::uint32_t blocks_for_target(const HeadState &head, ScoreKind kind, const float *scores, std::uint32_t scored, Crop crop,
                                std::uint32_t cap, std::uint32_t *room) {
  const Kernels &k = head.k();
  const float max = k.array.max(scores, scored);
  const std::uint32_t end = crop.end < scored ? crop.end : scored;
  const double fixed = mass_of(k, kind, max, scores, 0, crop.begin) + mass_of(k, kind, max, scores, end, scored);
  const double total = fixed + mass_of(k, kind, max, scores, crop.begin, end);
  const double wanted = static_cast<double>(head.settings().c.target_mass) * total;
  const std::uint32_t count = top_blocks(k, scores, crop.begin, end - crop.begin, cap, room);
  std::sort(room, room + count, [scores](std::uint32_t a, std::uint32_t b) {
    const std::uint32_t x = score_key(scores[a]), y = score_key(scores[b]);
    return x > y || (x == y && a < b);
  });
  double mass = fixed;
  std::uint32_t taken = 0;
  while (taken < count && mass < wanted) {
    mass += mass_of(k, kind, max, scores, room[taken], room[taken] + 1);
    ++taken;
  }
  return taken;
}

}  // namespace kvsift

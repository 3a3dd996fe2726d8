#include "policy/group.h"

namespace kvsift {

namespace {

void join(const HeadState &head, const float *rows, std::uint64_t stride, std::uint32_t count, const float *factors,
          float *out) {
  const Settings &s = head.settings();
  const ArrayKernels &k = head.k().array;
  const auto join_rows = s.c.grouping == KVSIFT_GROUP_MEAN ? k.mean : k.largest;
  join_rows(rows, stride, s.group, factors, out, count);
}

}  // namespace

ScoreKind reduce_group(const HeadState &head, ScoreKind kind, std::uint32_t count, float *scores, std::uint64_t stride) {
  const Settings &s = head.settings();
  if (s.c.grouping == KVSIFT_GROUP_QUERY_HEAD) return kind;
  const Kernels &k = head.k();
  float factors[KVSIFT_MAX_GROUP];
  for (std::uint32_t g = 0; g < s.group; ++g) {
    factors[g] = 1.0f;
    if (kind != ScoreKind::kLog) continue;
    float *row = scores + g * stride;
    factors[g] = 1.0f / k.attention.softmax(row, count, k.array.max(row, count));
  }
  join(head, scores, stride, count, factors, scores);
  return ScoreKind::kShare;
}

void reduce_rows(const HeadState &head, const float *rows, std::uint64_t stride, std::uint32_t count, float *out) {
  float factors[KVSIFT_MAX_GROUP];
  for (float &factor : factors) factor = 1.0f;
  join(head, rows, stride, count, factors, out);
}

}  // namespace kvsift

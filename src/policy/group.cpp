#include "policy/group.h"

namespace kvsift {

ScoreKind reduce_group(const HeadState &head, ScoreKind kind, std::uint32_t count, float *scores, std::uint64_t stride) {
  const Settings &s = head.settings();
  if (s.c.grouping == KVSIFT_GROUP_QUERY_HEAD) return kind;
  const Kernels &k = head.k();
  for (std::uint32_t g = 0; kind == ScoreKind::kLog && g < s.group; ++g) {
    float *row = scores + g * stride;
    const float sum = k.attention.softmax(row, count, k.array.max(row, count));
    k.array.axpby(1.0f / sum, row, 0.0f, row, count);
  }
  reduce_rows(head, scores, stride, count, scores);
  return ScoreKind::kShare;
}

void reduce_rows(const HeadState &head, const float *rows, std::uint64_t stride, std::uint32_t count, float *out) {
  const Settings &s = head.settings();
  const Kernels &k = head.k();
  if (out != rows) {
    for (std::uint32_t i = 0; i < count; ++i) out[i] = rows[i];
  }
  for (std::uint32_t g = 1; g < s.group; ++g) {
    const float *row = rows + g * stride;
    if (s.c.grouping == KVSIFT_GROUP_MEAN) {
      k.array.axpby(1.0f, out, 1.0f, row, count);
      continue;
    }
    for (std::uint32_t i = 0; i < count; ++i) out[i] = row[i] > out[i] ? row[i] : out[i];
  }
  if (s.c.grouping == KVSIFT_GROUP_MEAN) {
    k.array.axpby(1.0f / static_cast<float>(s.group), out, 0.0f, out, count);
  }
}

}  // namespace kvsift

#include "policy/observe.h"

#include <cmath>

#include "methods/method.h"
#include "policy/group.h"
#include "policy/undo.h"

namespace kvsift {
namespace {

// Attention mass on the blocks that were, or would have been, kept.
void count_recovery(const HeadState &head, std::uint32_t tokens, const float *mass, std::uint64_t stride) {
  Policy *policy = head.policy;
  const Settings &s = policy->s;
  const HeadMarks &marks = head.marks();
  if (marks.listed_layer != head.layer || marks.listed_tokens != tokens) return;
  for (std::uint32_t list = 0; list < s.lists; ++list) {
    const std::uint64_t index = std::uint64_t{head.kv_head} * s.lists + list;
    const std::uint32_t *blocks = policy->blocks.in(policy) + index * s.list_blocks;
    const std::uint32_t count = policy->block_counts.in(policy)[index];
    double kept = 0;
    for (std::uint32_t i = 0; i < count; ++i) kept += static_cast<double>(mass[list * stride + blocks[i]]);
    if (count == 0) continue;
    ++head.unit->counters.calibrations;
    head.unit->counters.recovery_sum += kept;
  }
}

void pass_on(const HeadState &head, const Scratch &room, std::uint32_t tokens, bool full, bool prompt,
             bool has_mass) {
  const Settings &s = head.settings();
  const Method &method = *method_of(s.c.method);
  const std::uint32_t blocks = blocks_of(tokens, s.c.block_tokens);
  if (s.c.grouping != KVSIFT_GROUP_QUERY_HEAD) {
    reduce_rows(head, room.scores, room.stride, blocks, room.scores);
    if (has_mass) reduce_rows(head, room.spare, room.stride, blocks, room.spare);
  }
  if (full && !prompt && has_mass) count_recovery(head, tokens, room.spare, room.stride);
  const bool first_of_chunk = prompt && head.unit->rows_seen <= head.policy->tokens;
  if (first_of_chunk && method.begin_chunk != nullptr) method.begin_chunk(head);
  if (!prompt) remember(head, tokens - 1);
  if (method.observe != nullptr) {
    method.observe(head, Row{tokens, blocks, full, prompt, room.scores, has_mass ? room.spare : nullptr,
                             room.stride});
  }
  head.unit->rows_seen = tokens;
}

}  // namespace

Scratch row_room(const HeadState &head) {
  head.marks().tail_tokens = 0;
  return head.scratch();
}

void observe_pooled(const HeadState &head, const PooledRows &rows) {
  const Settings &s = head.settings();
  const Kernels &k = head.k();
  const Scratch room = row_room(head);
  const std::uint32_t blocks = blocks_of(rows.tokens, s.c.block_tokens);
  for (std::uint32_t g = 0; g < s.group; ++g) {
    float *peak = room.scores + g * room.stride;
    const float *max = rows.block_max + g * rows.stride;
    const float lse = rows.log_sum_exp[g];
    for (std::uint32_t i = 0; i < blocks; ++i) peak[i] = max[i] - lse;
    k.array.exp(peak, peak, blocks);
    if (rows.block_mass == nullptr) continue;
    float *mass = room.spare + g * room.stride;
    for (std::uint32_t i = 0; i < blocks; ++i) mass[i] = rows.block_mass[g * rows.stride + i];
  }
  pass_on(head, room, rows.tokens, rows.full, rows.prompt, rows.block_mass != nullptr);
}

void observe_rows(const HeadState &head, const float *rows, std::uint64_t stride, std::uint32_t tokens, bool full,
                  bool prompt) {
  const Settings &s = head.settings();
  const Scratch room = row_room(head);
  const std::uint32_t size = s.c.block_tokens;
  const std::uint32_t blocks = blocks_of(tokens, size);
  for (std::uint32_t g = 0; g < s.group; ++g) {
    for (std::uint32_t i = 0; i < blocks; ++i) {
      const std::uint32_t begin = i * size, end = tokens - begin < size ? tokens : begin + size;
      float peak = 0, mass = 0;
      for (std::uint32_t t = begin; t < end; ++t) {
        const float p = rows[g * stride + t];
        peak = p > peak ? p : peak;
        mass += p;
      }
      room.scores[g * room.stride + i] = peak;
      room.spare[g * room.stride + i] = mass;
    }
  }
  pass_on(head, room, tokens, full, prompt, true);
}

}  // namespace kvsift

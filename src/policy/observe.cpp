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

// `peak`, which may be null, lies in the row room; `mass`, likewise, anywhere.
void pass_on(const HeadState &head, const float *peak, const float *mass, std::uint64_t stride, std::uint32_t tokens,
             bool full, bool prompt) {
  const Settings &s = head.settings();
  const Method &method = *method_of(s.c.method);
  const std::uint32_t blocks = blocks_of(tokens, s.c.block_tokens);
  if (s.c.grouping != KVSIFT_GROUP_QUERY_HEAD) {
    const Scratch room = head.scratch();
    if (peak != nullptr) reduce_rows(head, peak, stride, blocks, room.scores);
    if (mass != nullptr) reduce_rows(head, mass, stride, blocks, room.spare);
    if (mass != nullptr) mass = room.spare;
  }
  if (full && !prompt && mass != nullptr) count_recovery(head, tokens, mass, stride);
  const bool first_of_chunk = prompt && head.unit->rows_seen <= head.policy->tokens;
  if (first_of_chunk && method.begin_chunk != nullptr) method.begin_chunk(head);
  if (!prompt) remember(head, tokens - 1);
  if (method.observe != nullptr) method.observe(head, Row{tokens, blocks, full, prompt, peak, mass, stride});
  head.unit->rows_seen = tokens;
}

}  // namespace

Scratch row_room(const HeadState &head) {
  head.marks().tail_tokens = 0;
  return head.scratch();
}

void observe_pooled(const HeadState &head, const PooledRows &rows) {
  const Settings &s = head.settings();
  const ArrayKernels &k = head.k().array;
  const Scratch room = row_room(head);
  const std::uint32_t blocks = blocks_of(rows.tokens, s.c.block_tokens);
  // Methods that learn from masses have no use for peaks.
  if ((s.needs & KVSIFT_NEEDS_MASS) != 0) {
    return pass_on(head, nullptr, rows.block_mass, rows.stride, rows.tokens, rows.full, rows.prompt);
  }
  for (std::uint32_t g = 0; g < s.group; ++g) {
    float *peak = room.scores + g * room.stride;
    k.exp(rows.block_max + g * rows.stride, rows.log_sum_exp[g], peak, blocks);
    if (rows.block_mass == nullptr) continue;
    float *mass = room.spare + g * room.stride;
    for (std::uint32_t i = 0; i < blocks; ++i) mass[i] = rows.block_mass[g * rows.stride + i];
  }
  const float *mass = rows.block_mass == nullptr ? nullptr : room.spare;
  pass_on(head, room.scores, mass, room.stride, rows.tokens, rows.full, rows.prompt);
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
  pass_on(head, room.scores, room.spare, room.stride, tokens, full, prompt);
}

}  // namespace kvsift

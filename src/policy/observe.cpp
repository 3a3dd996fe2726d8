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

// The lists' rows from the query heads', in the row room, where the peaks are already.
Row join_rows(const HeadState &head, Row row) {
  if (head.settings().c.grouping == KVSIFT_GROUP_QUERY_HEAD) return row;
  const Scratch room = head.scratch();
  if (row.peak != nullptr) reduce_rows(head, row.peak, row.stride, row.blocks, room.scores);
  if (row.mass != nullptr) reduce_rows(head, row.mass, row.stride, row.blocks, room.spare);
  if (row.mass != nullptr) row.mass = room.spare;
  return row;
}

void learn(const HeadState &head, const Row &row) {
  const Method &method = *method_of(head.settings().c.method);
  if (row.full && !row.prompt && row.mass != nullptr) count_recovery(head, row.tokens, row.mass, row.stride);
  const bool first_of_chunk = row.prompt && head.unit->rows_seen <= head.policy->tokens;
  if (first_of_chunk && method.begin_chunk != nullptr) method.begin_chunk(head);
  if (!row.prompt) remember(head, row.tokens - 1);
  if (method.observe != nullptr) method.observe(head, row);
  head.unit->rows_seen = row.tokens;
}

Row own_row(const HeadState &head, const OwnRows &rows) {
  const Scratch room = head.scratch();
  return Row{rows.tokens, blocks_of(rows.tokens, head.settings().c.block_tokens), rows.full, false,
             rows.peaks ? room.scores : nullptr, rows.masses ? room.spare : nullptr, room.stride};
}

}  // namespace

Scratch row_room(const HeadState &head) {
  head.marks().tail_tokens = 0;
  return head.scratch();
}

void join_own_rows(const HeadState &head, const OwnRows &rows, const float *log_sum_exp) {
  const Scratch room = row_room(head);
  const Row row = own_row(head, rows);
  for (std::uint32_t g = 0; g < head.settings().group && rows.peaks; ++g) {
    float *peak = room.scores + g * room.stride;
    head.k().array.exp(peak, log_sum_exp[g], peak, row.blocks);
  }
  if (!rows.joined) join_rows(head, row);
}

void learn_own_rows(const HeadState &head, const OwnRows &rows) { learn(head, own_row(head, rows)); }

void pass_over(const HeadState &head, std::uint32_t tokens) {
  remember(head, tokens - 1);
  head.unit->rows_seen = tokens;
}

void observe_pooled(const HeadState &head, const PooledRows &rows) {
  const Settings &s = head.settings();
  if (!rows.prompt && !is_learnt(s, rows.tokens)) return pass_over(head, rows.tokens);
  const ArrayKernels &k = head.k().array;
  const Scratch room = row_room(head);
  const std::uint32_t blocks = blocks_of(rows.tokens, s.c.block_tokens);
  // Methods that learn from masses have no use for peaks.
  if ((s.needs & KVSIFT_NEEDS_MASS) != 0) {
    return learn(head, join_rows(head, Row{rows.tokens, blocks, rows.full, rows.prompt, nullptr, rows.block_mass, rows.stride}));
  }
  for (std::uint32_t g = 0; g < s.group; ++g) {
    float *peak = room.scores + g * room.stride;
    k.exp(rows.block_max + g * rows.stride, rows.log_sum_exp[g], peak, blocks);
    if (rows.block_mass == nullptr) continue;
    float *mass = room.spare + g * room.stride;
    for (std::uint32_t i = 0; i < blocks; ++i) mass[i] = rows.block_mass[g * rows.stride + i];
  }
  const float *mass = rows.block_mass == nullptr ? nullptr : room.spare;
  learn(head, join_rows(head, Row{rows.tokens, blocks, rows.full, rows.prompt, room.scores, mass, room.stride}));
}

void observe_rows(const HeadState &head, const float *rows, std::uint64_t stride, std::uint32_t tokens, bool full,
                  bool prompt) {
  const Settings &s = head.settings();
  if (!prompt && !is_learnt(s, tokens)) return pass_over(head, tokens);
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
  learn(head, join_rows(head, Row{tokens, blocks, full, prompt, room.scores, room.spare, room.stride}));
}

}  // namespace kvsift

// Attention rows on their way into a method: pooled over blocks, reduced to the KV head's choices.
#pragma once

#include "policy/policy.h"

namespace kvsift {

// Where rows are pooled: peaks to the scratch's scores, masses to its spare rows. What lay there is void.
Scratch row_room(const HeadState &head);

// Rows of a decode step in the head's own row room. The method learns from them in two halves, so that a call on many heads
// can fail between them with nothing learnt.
struct OwnRows {
  std::uint32_t tokens;
  bool full;
  bool peaks, masses;  // which of the two lie there
  bool joined;         // already
};
// First half, right after attention: logits become shares, query heads' rows those of their lists.
void join_own_rows(const HeadState &head, const OwnRows &rows, const float *log_sum_exp);
void learn_own_rows(const HeadState &head, const OwnRows &rows);

// Whether the row of a decode step over `tokens` will still count when the first choice is made.
inline bool is_learnt(const Settings &s, std::uint32_t tokens) { return tokens >= s.learns_from; }
// A row that will not has come.
void pass_over(const HeadState &head, std::uint32_t tokens);

// Pooled rows of the group's query heads, as kvsift_attend and the prefill give them.
struct PooledRows {
  std::uint32_t tokens;
  bool full, prompt;
  const float *block_max;    // [group][stride] logits
  const float *block_mass;   // [group][stride]; may be null
  const float *log_sum_exp;  // [group]
  std::uint64_t stride;
};
// The rows may lie in the head's own row room.
void observe_pooled(const HeadState &head, const PooledRows &rows);

// Whole softmax rows, [group][stride].
void observe_rows(const HeadState &head, const float *rows, std::uint64_t stride, std::uint32_t tokens, bool full,
                  bool prompt);

}  // namespace kvsift

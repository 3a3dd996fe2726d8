// The BalanceKV coreset of each KV head: what method `balance` keeps of the older tokens, and the
// tail `balance`.
#pragma once

#include "attend/prefill.h"
#include "policy/policy.h"

namespace kvsift {

// The shape that a configuration asks for (entries 0: none), or a sentence.
kvsift_status settle_coreset(const kvsift_policy_config &config, CoresetShape *shape);

void lay_out_coreset(UnitLayout *unit, const Settings &settings, UnitPlaces *places);
std::uint64_t coreset_scratch_bytes(const Settings &settings);

bool has_coreset(const Settings &settings);
// Whether the prompt is compressed by importance, once it is known.
bool is_graded(const Settings &settings);
BalancePlan coreset_plan(const Settings &settings, std::uint32_t layer);
Coreset coreset_of(const HeadState &head);
char *coreset_scratch_of(const HeadState &head);

// Tokens that follow on from those seen, rows 0 .. tokens of the views.
void observe_coreset(const HeadState &head, const HeadRows &keys, const HeadRows &values,
                     std::uint32_t tokens);

// A graded prompt, of which `job` holds the last queries: from the cache, all but the local tokens
// are compressed anew. Only before decoding (policy/grade.cpp).
void grade_prompt(const HeadState &head, const Prefill &job);
std::uint64_t grade_scratch_bytes(const Settings &settings);

// Decoding has begun: method balance takes no more tokens, unless it streams; they all stay exact.
void close_coreset(const HeadState &head);

// Copies the head's coreset to the selection. Where blocks are chosen beside it, the weights that
// are left are scaled to stand for the tokens that are not attended to exactly. Called once the
// lists are written.
void select_coreset(const HeadState &head);

bool can_truncate_coreset(const HeadState &head, std::uint32_t tokens);
void truncate_coreset(const HeadState &head, std::uint32_t tokens);

// A coreset's buffers in a snapshot, which comes from outside: whether they can be used by a head
// that has seen `seen` tokens.
struct CoresetImage {
  const char *state, *tokens, *weights, *backups, *before_end, *guards;
};
bool coreset_sane(const CoresetShape &shape, const CoresetImage &image, std::uint32_t seen);

}  // namespace kvsift

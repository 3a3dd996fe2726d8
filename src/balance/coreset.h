// A weighted coreset of one head's tokens, built as they come: merge and reduce over token numbers
// of the caller's cache, ascending.
//
//     sinks | top: 1 / 2^levels of what came | level levels - 1 | ... | level 1 | level 0
//
// Level 0 holds the newest tokens at weight 1, `lag` of them at least. Each further group of it is
// halved into level 1, two halves of which are halved into level 2, and so on. Rows are copied for
// as long as they may be halved again; the top's are the cache's alone. What lies below the top is
// backed up before a group is halved, so that tokens can be taken back. With a guard, tokens unlike
// their group leave level 0 for a list of their own instead, with weight 1.
#pragma once

#include "balance/guard.h"
#include "balance/halver.h"

namespace kvsift {

constexpr std::uint32_t kCoresetLevels = 24;

struct CoresetShape {
  std::uint32_t dim, group, levels, lag, sinks;
  std::uint32_t entries;  // capacity
  std::uint32_t rows;     // of copied rows: those below the top
  std::uint32_t backups;  // halvings of level 0 that can be taken back
  std::uint32_t guards;   // capacity of the guard's list; 0: no guard
  bool closes;            // there is an end, and a way back behind it

  // The guard may keep as many tokens as the halvings do.
  std::uint32_t guard_most(std::uint32_t tokens) const {
    return guards == 0 ? 0 : tokens >> levels;
  }
  // What a reader has to have room for.
  constexpr std::uint32_t most() const { return entries + guards; }
};

struct CoresetWish {
  std::uint32_t dim, lag, sinks, max_tokens;
  std::uint32_t rollback;  // tokens that may be taken back
  bool guard, closes;
};

// The shape with a group and a number of halvings given.
CoresetShape coreset_shape(const CoresetWish &wish, std::uint32_t group, std::uint32_t levels);

// The shape whose coreset of max_tokens tokens has about `size`, guarded ones included, the lag
// apart; group 0 where that cannot be.
CoresetShape coreset_shape_of_size(const CoresetWish &wish, std::uint32_t size);

struct CoresetState {
  std::uint32_t reduced;  // tokens that have left level 0
  std::uint32_t base;     // of those, the ones that went at once; the others went group by group
  std::uint32_t closed;   // no more tokens are taken
  std::uint32_t guarded;  // of the reduced, those that the guard kept
  std::uint32_t guards;   //   and have in its list
  std::uint32_t counts[kCoresetLevels + 1];
};

// A backup: the state, then tokens and weights below the top, then their rows. At the end rows stay
// where they are.
std::uint64_t coreset_backup_bytes(const CoresetShape &shape);
std::uint64_t coreset_end_bytes(const CoresetShape &shape);

struct CoresetScratch {
  Offset<std::int8_t> guarded;
  Offset<std::uint32_t> order;
  Offset<float> weight, spread, wide;
  HalverPlaces halver;
};
CoresetScratch lay_out_coreset_scratch(Layout *layout, const CoresetShape &shape,
                                       const BalancePlan &plan);

struct Coreset {
  const CoresetShape *shape;
  CoresetState *state;
  std::uint32_t *tokens;  // [entries]
  float *weights;         // [entries]
  F16 *keys, *values;     // [rows][dim]
  char *backups;          // [backups][coreset_backup_bytes]
  char *before_end;       // [coreset_end_bytes]
  std::uint32_t *guards;  // [guards] tokens, ascending

  // Without the guard's.
  std::uint32_t size() const;
  // The first token that stands for itself alone, and the one after the last that was taken.
  std::uint32_t exact_from() const { return shape->sinks + state->reduced; }
  std::uint32_t end() const { return exact_from() + state->counts[0]; }
  // Exact, or not at all.
  bool can_truncate(std::uint32_t length) const;
  void truncate(std::uint32_t length);
  void back_up() const;
  void back_up_end() const;
  // Takes the tokens of the range, from the sinks on, with these weights (by place, zero: gone) for
  // all that was halved; level 0 keeps those behind. `guarded` of them are the guard's. There is no
  // way back behind it.
  void replace(const float *weight_of, std::uint32_t range_end, std::uint32_t guarded);

 private:
  char *slot(std::uint32_t i) const { return backups + i * coreset_backup_bytes(*shape); }
  std::uint32_t slot_of(const CoresetState &of, std::uint32_t reduced) const;
  // The state that a cut to `length` starts from.
  CoresetState state_for(std::uint32_t length) const;
  std::uint32_t reduced_at(const CoresetState &of, std::uint32_t length) const;
  char *save_lists(char *to) const;
  const char *restore_lists(const char *from);
  void restore(const char *from);
  void forget_after(std::uint32_t length) const;
};

// Where tokens enter.
class CoresetBuilder {
 public:
  CoresetBuilder(const Coreset &coreset, const BalancePlan &plan, const Kernels &kernels,
                 std::uint32_t head, void *scratch);
  // Tokens first .. first + count, rows 0 .. count of the views.
  void push(const HeadRows &keys, const HeadRows &values, std::uint32_t first, std::uint32_t count);
  // Halves everything but the lag up to the top; no more tokens are taken.
  void close();

 private:
  void append(std::uint32_t token, const Rows &key, const Rows &value);
  // Halves entries [begin, begin + count) of `level` in place and hands them to the next.
  void reduce(std::uint32_t level, std::uint32_t begin, std::uint32_t count);
  std::uint32_t halve(std::uint32_t begin, std::uint32_t count, std::uint32_t level);
  // Puts rows of `count` places before what the scratch lists have; guarded ones are left out.
  std::uint32_t list_rows(std::uint32_t begin, std::uint32_t count, std::uint32_t listed,
                          const std::int8_t *guarded);
  std::uint32_t halve_list(std::uint32_t count, std::uint32_t level);
  void sort_list(std::uint32_t count);
  void take_top(std::uint32_t kept, std::uint32_t newest, std::uint32_t from);
  // Tokens of level 0 that are not to be halved go to the guard's list.
  void guard(std::uint32_t begin, std::uint32_t count);
  void move(std::uint32_t to, std::uint32_t from, bool row);
  void copy_row(const Rows &from, F16 *to);
  kvsift_view rows_view(const F16 *rows) const;

  const Coreset &c_;
  const BalancePlan &plan_;
  const Kernels &kernels_;
  std::uint32_t head_;
  char *base_;
  CoresetScratch places_;
  BalanceCounters counters_{};
};

}  // namespace kvsift

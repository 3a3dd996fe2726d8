// What a method is to the rest of the library. Each method is one file that fills one of these tables.
//
// Most methods rank blocks: they give each block a score and leave budget, sinks, local tokens, grouping, ties and lists
// to policy/select.cpp. A method that decides once and for all what survives of the prompt (SnapKV, uniform ...) has
// `keep` instead. Everything below works on one KV head of one layer; state lies in that head's unit, by offsets.
#pragma once

#include <cstdint>

#include "policy/policy.h"

namespace kvsift {

class UnitImage;  // policy/snapshot.h

// One softmax row, pooled over blocks and reduced to the choices of the KV head.
struct Row {
  std::uint32_t tokens;   // cache length of its query
  std::uint32_t blocks;
  bool full;              // everything was attended
  bool prompt;            // a prompt row, else a decode step's
  const float *peak;      // [lists][stride] largest probability in the block; 0 where nothing was attended. Null, or not,
                          // for methods that need masses: those learn from them
  const float *mass;      // [lists][stride] probability of the whole block; null where not asked for
  std::uint64_t stride;
};

// The choice of one list: whole blocks, ascending.
struct Chosen {
  std::uint32_t *blocks;
  std::uint32_t count;
  std::uint32_t capacity;
};

enum class ScoreKind {
  kShare,  // of attention, at least 0
  kLog     // logarithm of a share, up to a constant
};

struct Method {
  const char *name;
  void (*defaults)(kvsift_policy_config *);
  // What this method alone demands of a configuration; may be null.
  kvsift_status (*check)(const kvsift_policy_config &, kvsift_error *);
  std::uint32_t needs;          // KVSIFT_NEEDS_*, the tail's apart
  bool evicts;                  // what is left out never comes back
  // Full prompt rows it learns from, counted from the prompt's end; null: none.
  std::uint32_t (*prefill_rows)(const Settings &);
  // Takes its state: layout->method[i] = layout->step<T>(...) or layout->lasting<T>(...). May be null.
  void (*layout)(UnitLayout *layout, const Settings &settings);
  // State after create, where all zeros will not do; may be null.
  void (*reset)(const HeadState &head);
  // A prompt chunk begins (rows of an earlier chunk no longer are the prompt's last); may be null.
  void (*begin_chunk)(const HeadState &head);
  void (*observe)(const HeadState &head, const Row &row);
  // Of a decode step's row nothing is left so many rows later; null: something always is.
  std::uint32_t (*memory)(const Settings &);
  // [blocks] that `observe` adds a list's row to, so that it can be asked for ahead; may be null.
  float *(*sums)(const HeadState &head, std::uint32_t list);
  // Ranking methods: scores[rows][stride] of all `blocks` blocks, one row for each query head where `needs` has the
  // query, else one for each list. Returns how many leading blocks have a score: the others are not candidates.
  std::uint32_t (*score)(const HeadState &head, const QueryRows &query, std::uint32_t blocks, float *scores,
                         std::uint64_t stride);
  ScoreKind kind;
  // Evicting methods that rank: `kept` (ascending) of all `blocks` were chosen, the others are gone.
  void (*evict)(const HeadState &head, std::uint32_t list, std::uint32_t blocks, const std::uint32_t *kept,
                std::uint32_t count);
  // The first token of the newest stretch that is kept; null: local_tokens back from the end.
  std::uint32_t (*exact_from)(const HeadState &head, std::uint32_t tokens);
  // Keeping methods: the surviving blocks of the prompt for list `list`, of the `head.unit->prompt_tokens` tokens it has,
  // besides the sinks and the last `settings.prompt_local` tokens. Called once, at the first decode step after the prompt;
  // tokens after the prompt are all kept.
  void (*keep)(const HeadState &head, std::uint32_t list, Chosen *chosen);
  // AttentionPredictor: scores for the next token, ahead of its query.
  void (*predict)(const HeadState &head);
  // Snapshots come from outside: whether the counts and indices in a unit's image are in range. May be null.
  bool (*sane)(const Settings &settings, const UnitPlaces &places, const UnitImage &image);
  // Methods with their own way back; null: the undo ring restores `step` state.
  bool (*can_truncate)(const HeadState &head, std::uint32_t tokens);
  void (*truncate)(const HeadState &head, std::uint32_t tokens);
};

extern const Method kFull, kStreaming, kH2o, kSnapKv, kPyramidKv, kQuest, kPageStats, kEma, kUniform,
    kAttentionPredictor, kBalance;

}  // namespace kvsift

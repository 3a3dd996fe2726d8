// A policy in its arena.
//
//     | Policy | selection lists | units: one for each sparse layer and KV head | scratch: one for each KV head |
//
// A unit holds all that is known of one KV head in one layer. Units and scratch of different KV heads are disjoint, which
// is what lets calls on disjoint head ranges overlap without a lock. All references are offsets, so that a policy can be
// copied (fork) and saved.
#pragma once

#include <atomic>
#include <cstdint>

#include "attend/moments.h"
#include "core/arena.h"
#include "kernels/kernels.h"
#include "policy/settings.h"

namespace kvsift {

constexpr std::uint64_t kAlive = 0x6b76736966743031ull;

// Counters of one unit; kvsift_get_stats adds them up.
struct Counters {
  std::uint64_t selections, tokens_kept, tokens_total, tokens_read, calibrations;
  double recovery_sum;
  std::uint64_t columns_computed, columns_total, state_bytes_touched, missed_blocks;
};

// How a unit's buffers grow and go back.
enum class Grows : std::uint32_t { kWhole, kBlocks, kPages };

// One buffer of a unit.
struct Field {
  std::uint64_t offset;        // from the unit's start
  std::uint64_t bytes;         // whole size
  std::uint64_t piece;         // bytes a block or page, `repeat` times at a distance of `bytes / repeat`
  std::uint32_t repeat;
  Grows grows;
};

// Walks the buffers of a unit; the same walk counts and places.
class UnitLayout {
 public:
  static constexpr std::uint32_t kFields = 26, kMethodFields = 12;

  explicit UnitLayout(const Settings &settings) : settings_(settings) {}

  // Buffers that a step changes and the undo ring restores. All of these come before the lasting ones.
  template <class T>
  std::uint64_t step(std::uint64_t count, const char *name) {
    const std::uint64_t at = add<T>(1, count, Grows::kWhole, name);
    step_end_ = layout_.used();
    return at;
  }
  // Buffers that only grow (rows of blocks or pages beyond the cache's end do not count), or never change.
  template <class T>
  std::uint64_t lasting(std::uint64_t count, const char *name) {
    return add<T>(1, count, Grows::kWhole, name);
  }
  // `repeat` arrays of max_blocks (or max_pages) pieces of `count` elements each.
  template <class T>
  std::uint64_t growing(std::uint32_t repeat, std::uint64_t count, Grows grows, const char *name) {
    return add<T>(repeat, count, grows, name);
  }

  std::uint64_t method[kMethodFields] = {};
  const Layout &layout() const { return layout_; }
  std::uint64_t step_begin() const { return step_begin_; }
  std::uint64_t step_end() const { return step_end_ == 0 ? step_begin_ : step_end_; }
  void begin_steps() { step_begin_ = layout_.used(); }
  const Field *fields() const { return fields_; }
  std::uint32_t field_count() const { return field_count_; }

 private:
  template <class T>
  std::uint64_t add(std::uint32_t repeat, std::uint64_t count, Grows grows, const char *name) {
    std::uint64_t pieces = 1;
    if (grows == Grows::kBlocks) pieces = settings_.max_blocks;
    if (grows == Grows::kPages) pieces = settings_.max_pages;
    const std::uint64_t at = layout_.take<T>(repeat * pieces * count, name).bytes;
    if (field_count_ < kFields) {
      fields_[field_count_++] =
          Field{at, repeat * pieces * count * sizeof(T), count * sizeof(T), repeat, grows};
    }
    return at;
  }

  const Settings &settings_;
  Layout layout_;
  Field fields_[kFields] = {};
  std::uint32_t field_count_ = 0;
  std::uint64_t step_begin_ = 0, step_end_ = 0;
};

// The part of a unit that every method has.
struct Unit {
  std::uint32_t keys_seen;      // tokens whose keys came
  std::uint32_t rows_seen;      // cache length of the last row observed
  std::uint32_t selected_for;   // cache length of the last selection
  std::uint32_t prompt_tokens;  // keeping methods: the prompt they decided on
  std::uint32_t decided;        //   and whether they have
  std::uint32_t undo_next;      // the ring's slot that is written next
  std::uint32_t undo_count;     // slots in use
  Counters counters;
};

// Offsets within a unit.
struct UnitOffsets {
  std::uint64_t bytes;
  std::uint64_t step_begin, step_end;
  std::uint64_t open_page;      // float [3][dim16]: the open page's key mean, sum of squared differences, value mean
  std::uint64_t open_bounds;    // F16 [2][dim16]: its least and greatest keys
  std::uint64_t key_mean, key_std, value_mean, key_min, key_max;
  std::uint64_t key_mean_scale, key_std_scale, value_mean_scale;
  std::uint64_t coreset_state, coreset_tokens, coreset_weights, coreset_keys, coreset_values,
      coreset_backups, coreset_before_end, coreset_guards;
  std::uint64_t kept;           // u32 [lists][kept_blocks], keeping methods
  std::uint64_t kept_counts;    // u32 [lists]
  std::uint64_t undo;           // ring of rollback_tokens slots
  std::uint64_t undo_tokens;    // u32 [rollback_tokens]: the cache length each slot restores
  std::uint64_t method[UnitLayout::kMethodFields];
};
struct UnitPlaces : UnitOffsets {
  Field fields[UnitLayout::kFields];
  std::uint32_t field_count;
};

// What the lists and the scratch of a KV head are for at the moment.
struct HeadMarks {
  std::uint32_t listed_layer, listed_tokens;  // of the lists
  std::uint32_t tail_layer, tail_tokens;      // of the tail logits that a selection left in scratch; tokens 0: none
};

// The scratch of a KV head.
struct Scratch {
  std::uint64_t stride;  // of block rows
  float *scores;         // [group][stride]: scores, or pooled rows
  float *spare;          // [group][stride]: page scores, tail logits or block masses
  float *choice;         // [stride]
  float *queries;        // [group][dim16]
};

inline std::uint64_t scratch_stride(const Settings &s) {
  const std::uint32_t most = s.max_blocks > s.max_pages ? s.max_blocks : s.max_pages;
  return (most + 15) / 16 * 16;
}

// The settings and where everything lies: the same for every policy of one configuration.
struct PolicyPlaces {
  Settings s;
  UnitPlaces places;
  std::uint64_t bytes;          // of the arena in use
  std::uint64_t scratch_floats; // of one KV head
  Offset<char> units;
  Offset<float> scratch;
  Offset<kvsift_range> ranges;
  Offset<std::uint32_t> range_counts, blocks, block_counts, missed, missed_counts;
  Offset<std::uint32_t> coreset, coreset_counts;
  Offset<float> coreset_weights;
  Offset<char> coreset_scratch;
  std::uint64_t coreset_scratch_bytes;  // of one KV head
  Offset<HeadMarks> marks;
};

struct Policy : PolicyPlaces {
  std::uint64_t alive;
  Level level;
  bool multiplies_int8;         // machine_multiplies_int8(level)
  std::uint32_t tokens;
  std::uint32_t decode_steps;
  std::uint32_t prompt_end;     // cache length after the last prompt chunk
  std::uint32_t first_prompt;   // and before the first decode step
  std::atomic<std::uint32_t> selected_for;  // cache length of the last selection of any head
  std::atomic<std::uint32_t> error_busy;
  kvsift_error error;

  Unit *unit(std::uint32_t sparse_layer, std::uint32_t kv_head) {
    const std::uint64_t index = std::uint64_t{sparse_layer} * s.c.kv_heads + kv_head;
    return reinterpret_cast<Unit *>(units.in(this) + index * places.bytes);
  }
  const Unit *unit(std::uint32_t sparse_layer, std::uint32_t kv_head) const {
    return const_cast<Policy *>(this)->unit(sparse_layer, kv_head);
  }
};

// One KV head of one layer, as methods see it.
struct HeadState {
  Policy *policy;
  Unit *unit;
  std::uint32_t layer;
  std::uint32_t kv_head;

  const Settings &settings() const { return policy->s; }
  const UnitPlaces &places() const { return policy->places; }
  const Kernels &k() const { return *kernels(policy->level); }
  template <class T>
  T *at(std::uint64_t offset) const {
    return reinterpret_cast<T *>(reinterpret_cast<char *>(unit) + offset);
  }
  template <class T>
  T *state(std::uint32_t field) const {
    return at<T>(policy->places.method[field]);
  }
  HeadMarks &marks() const { return policy->marks.in(policy)[kv_head]; }
  Scratch scratch() const {
    const Settings &s = policy->s;
    const std::uint64_t stride = scratch_stride(s);
    float *scores = policy->scratch.in(policy) + kv_head * policy->scratch_floats;
    float *spare = scores + s.group * stride, *choice = spare + s.group * stride;
    return Scratch{stride, scores, spare, choice, choice + stride};
  }
};

// The group's queries of one decode step, float32, padded with zeros to dim16.
struct QueryRows {
  const float *rows;  // [group][dim16]; null where the method does not read the query
  std::uint32_t tokens;
};

// The prompt that keeping methods decide on.
inline std::uint32_t prompt_of(const Policy &policy) {
  return policy.decode_steps == 0 ? policy.tokens : policy.first_prompt;
}

inline HeadState head_of(Policy *policy, std::uint32_t layer, std::uint32_t kv_head) {
  return HeadState{policy, policy->unit(layer - policy->s.c.dense_layers, kv_head), layer, kv_head};
}

}  // namespace kvsift

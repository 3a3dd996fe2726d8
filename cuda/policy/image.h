// A policy's arena as kernels see it: the very image that a CPU policy has in its arena (policy/policy.h), at the same
// offsets, and device-only room behind it.
//
//     | Policy | selection lists | units | scratch | room of the device alone |
#pragma once

#include "policy/policy.h"

namespace kvsift {

// The counters of struct Policy, which lie side by side.
struct Progress {
  std::uint32_t tokens, decode_steps, prompt_end, first_prompt, selected_for;
};

// The counters at a cache cut back to `to` tokens. Tokens of a prompt are no decode steps.
constexpr Progress truncated(const Progress &p, std::uint32_t to) {
  const std::uint32_t decoded = p.tokens - (to > p.prompt_end ? to : p.prompt_end);
  const std::uint32_t most = to > p.first_prompt ? to - p.first_prompt : 0;
  const std::uint32_t left = p.decode_steps > decoded ? p.decode_steps - decoded : 0;
  return Progress{to, left < most ? left : most, p.prompt_end < to ? p.prompt_end : to,
                  p.first_prompt < to ? p.first_prompt : to, 0};
}

// What a select found its step to be; one for each KV head.
struct StepRecord {
  std::uint32_t tokens, everything, calibration, tail;
};

// What a kernel found wrong; lies in pinned host memory, where the next call sees it.
struct Fault {
  std::uint32_t what;  // FaultKind; 0: nothing
  std::uint32_t layer, head, tokens;
};
enum FaultKind : std::uint32_t {
  kFaultNone,
  kFaultQuery,
  kFaultKeys,
  kFaultValues,
  kFaultAttention,
  kFaultTable,
  kFaultObservation,
  kFaultOtherQuery,  // than the selection's, whose tail logits are used
  kFaultCapacity,
  kFaultRollback
};

// The room of the device alone; offsets from the image's start.
struct RoomPlaces {
  std::uint64_t steps;     // StepRecord [KV heads]
  std::uint64_t tickets;   // u32 [KV heads], zero between kernels
  std::uint64_t chosen;    // u32 [lists][list_blocks]
  std::uint64_t chosen_counts, kept_counts;  // u32 [lists]
  std::uint64_t present;   // range [lists][present_ranges]: of what was chosen, what the cache has
  std::uint64_t present_counts, present_kept;  // u32 [lists]: ranges, and tokens in them
  std::uint64_t present_ranges;
  std::uint64_t reduced;   // float [KV heads][reduce_room]
  std::uint64_t sorted;    // u32 [lists][list_blocks], with target_mass: blocks by falling scores
  std::uint64_t values;    // float [query heads][slots][dim16]: weighted values of each chunk
  std::uint64_t sums;      // float [query heads][slots][2]: its maximum and sum
  std::uint64_t carries;   // Carry [query heads][slots]
  std::uint64_t left;      // u32 [lists][coreset's most]: tokens of the coreset that the list does not keep
  std::uint64_t left_logs; // float likewise: logarithms of their weights
  std::uint64_t left_counts;  // u32 [lists]
  std::uint64_t matrix;    // float [KV heads][coreset_matrices][side][side]: of halvings
  std::uint64_t ahead;     // u32 [KV heads][ahead_places]: tokens that halvings ahead of their turn have kept
  std::uint64_t ahead_weights;  // float likewise
  std::uint64_t method;    // what the method asked for
  std::uint64_t slots;     // chunks that a query head can have
  std::uint64_t bytes;     // of the whole arena
};

// What a chunk has of the block that it shares with the chunk before it.
struct Carry {
  std::uint32_t block;  // UINT32_MAX: none
  float max, log_mass;
};

struct Image {
  char *base;
  Fault *fault;
  Settings s;  // its pointers are the host's
  UnitOffsets at;
  RoomPlaces room;
  std::uint64_t progress, units, scratch, scratch_floats;
  std::uint64_t ranges, range_counts, blocks, block_counts, missed, missed_counts, marks;
  std::uint64_t coreset, coreset_weights, coreset_counts;
};

// What every kernel of a call is told.
struct Call {
  Image image;
  std::uint32_t layer;
  std::uint32_t first_head;  // KV heads from here on: blockIdx.y counts from it
  std::uint32_t tokens;      // cache length with the new token; 0: one more than the policy's
};

}  // namespace kvsift

// A policy's configuration, checked once, with what follows from it.
#pragma once

#include <cstdint>

#include "balance/coreset.h"
#include "core/status.h"
#include "kvsift/kvsift.h"

namespace kvsift {

struct Method;

struct Settings {
  kvsift_policy_config c;      // pointers nulled but for the predictor
  std::uint32_t group;         // query heads of a KV head
  std::uint32_t lists;         // choices of a KV head: group, or 1 where it shares
  std::uint32_t dim16;         // head_dim rounded up to 16
  std::uint32_t max_blocks;    // at max_tokens
  std::uint32_t max_pages;
  std::uint32_t sparse_layers; // layers that keep state
  std::uint32_t prompt_local;  // keeping methods: newest prompt tokens that always survive
  std::uint32_t kept_blocks;   // the most blocks that survive of a prompt
  std::uint32_t list_blocks;   // the most blocks in one list
  std::uint32_t list_ranges;   // and ranges
  std::uint32_t needs;         // KVSIFT_NEEDS_*
  std::uint32_t dense_tokens;  // a cache of at most so many is attended to whole
  std::uint32_t learns_from;   // rows of decode steps over fewer tokens are forgotten before a choice hangs on them
  bool page_moments;           // key mean and deviation are kept
  bool value_moments;          // and value means
  bool page_bounds;            // key minimum and maximum are kept
  float scale;
  CoresetShape coreset;        // entries 0: none
};

constexpr std::uint32_t blocks_of(std::uint32_t tokens, std::uint32_t block) {
  return tokens / block + (tokens % block != 0);
}

// Tokens that may be kept of a context of `tokens`.
constexpr std::uint32_t budget_at(const kvsift_policy_config &c, std::uint32_t tokens) {
  const auto shared = static_cast<std::uint32_t>(static_cast<double>(c.budget_share) * tokens);
  return shared > c.budget_tokens ? shared : c.budget_tokens;
}

// Whether a step over `tokens` attends to all of them because they are few.
constexpr bool attends_to_all(const Settings &s, std::uint32_t tokens) {
  return tokens <= s.dense_tokens || budget_at(s.c, tokens) >= tokens;
}

const Method *method_of(kvsift_method method);  // null: unknown

// Checks `config` and fills `settings`; the sentence goes to config.error.
kvsift_status settle(const kvsift_policy_config &config, Settings *settings);

}  // namespace kvsift

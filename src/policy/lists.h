// A selection list: sinks, chosen blocks and the newest tokens, written as ranges and as block numbers.
#pragma once

#include "policy/policy.h"

namespace kvsift {

struct ListParts {
  const std::uint32_t *blocks;  // chosen, ascending
  std::uint32_t count;
  std::uint32_t sink_end;       // tokens [0, sink_end) are kept
  std::uint32_t local_begin;    // and [local_begin, tokens)
  std::uint32_t tokens;
};

// Writes list `list` of the KV head; returns the tokens it keeps.
std::uint32_t write_list(const HeadState &head, std::uint32_t list, const ListParts &parts);

// The one range [0, tokens); the block list is left as it is.
void write_everything(const HeadState &head, std::uint32_t list, std::uint32_t tokens);

// Tokens in at least one of the KV head's lists.
std::uint32_t union_of_lists(const HeadState &head);

}  // namespace kvsift

// Page statistics of a KV head, built as keys arrive.
#pragma once

#include "attend/attend.h"
#include "policy/policy.h"

namespace kvsift {

// The head's page moments for a cache of `tokens` tokens.
Moments moments_of(const HeadState &head, std::uint32_t tokens);

// Takes in `tokens` keys (and values, whose data may be null) that follow on from those seen.
void append_keys(const HeadState &head, const HeadRows &keys, const HeadRows &values, std::uint32_t tokens);

// Writes the open page's summaries again, after its running statistics were restored.
void rewrite_open_page(const HeadState &head);

}  // namespace kvsift

// The way back: each unit keeps copies of its step state for the last rollback_tokens cache lengths.
#pragma once

#include "policy/policy.h"

namespace kvsift {

// Remembers the state that belongs to a cache of `tokens` tokens, before a later token changes it. Once for each length.
void remember(const HeadState &head, std::uint32_t tokens);

// Whether the unit's state at `tokens` can be restored, and restoring it. A unit that has seen no more is left alone.
bool can_restore(const HeadState &head, std::uint32_t tokens);
void restore(const HeadState &head, std::uint32_t tokens);

}  // namespace kvsift

// A policy's state as bytes: what is in use of every unit, with a header that says what it belongs to.
#pragma once

#include "policy/policy.h"

namespace kvsift {

std::uint64_t snapshot_bytes(const Policy &policy);

// `buffer` holds snapshot_bytes.
void save(const Policy &policy, void *buffer);

// Checks all of the buffer before it changes the policy; the sentence goes to `error`.
kvsift_status load(Policy *policy, const void *buffer, std::uint64_t bytes, kvsift_error *error);

}  // namespace kvsift

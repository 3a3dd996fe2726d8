// The arena of a policy, walked once: counts for the size query, gives offsets for create.
#pragma once

#include "policy/policy.h"

namespace kvsift {

// Fills `policy` and walks all buffers through `layout`.
kvsift_status lay_out(const Settings &settings, Layout *layout, PolicyPlaces *policy, kvsift_error *error);

}  // namespace kvsift

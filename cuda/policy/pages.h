// Keys (and values) on their way into page statistics.
#pragma once

#include "cuda/policy/image.h"

namespace kvsift {

// blockIdx.x 0 works on the open page and the newest ones in order of tokens; the others on whole pages between.
struct KeysArgs {
  Call call;
  kvsift_view keys, values;   // indexed from 0; values.data null where not needed
  std::uint32_t first_token;  // UINT32_MAX: whatever the head has seen, and then there is one block a head
  std::uint32_t tokens;
};

}  // namespace kvsift

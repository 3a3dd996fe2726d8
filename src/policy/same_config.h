// Whether two configurations shape the same state.
#pragma once

#include "core/status.h"

namespace kvsift {

// The first field in which two configurations differ as far as a policy's state goes by it.
struct ConfigDifference {
  const char *field;  // null: none
  Word a, b;          // its values
};
ConfigDifference difference_of(const kvsift_policy_config &a, const kvsift_policy_config &b);

}  // namespace kvsift

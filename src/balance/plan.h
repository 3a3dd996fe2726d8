// A BalanceKV configuration, checked once.
#pragma once

#include "core/status.h"
#include "kvsift/balance.h"

namespace kvsift {

struct BalancePlan {
  kvsift_balance_config c;  // defaults filled in, pointers kept
  float scale;              // of q.k
};

void balance_defaults(std::uint32_t form, kvsift_balance_config *config);

// Checks `config` and fills `plan`; the sentence goes to config.error.
kvsift_status settle_balance(const kvsift_balance_config &config, BalancePlan *plan);

inline bool reads_rows(const BalancePlan &plan) {
  return plan.c.form != KVSIFT_BALANCE_UNIFORM && plan.c.form != KVSIFT_BALANCE_PERMUTATION;
}

// Gamma and kernel in units of R, the longest feature of the group.
inline bool in_units_of_r(const BalancePlan &plan) {
  return plan.c.form == KVSIFT_BALANCE_THEORY || plan.c.form == KVSIFT_BALANCE_RELATIVE;
}

}  // namespace kvsift

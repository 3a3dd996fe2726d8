#pragma once

#include "balance/balance_kernels.h"
#include "balance/pack_impl.h"
#include "balance/walk_impl.h"

namespace kvsift {
namespace {

template <class V>
constexpr BalanceKernels balance_kernels = {balance_mean<V>, balance_pack<V>, balance_walk<V>};

}  // namespace
}  // namespace kvsift

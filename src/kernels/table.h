// The kernels of one vector class; included by each isa_*.cpp.
#pragma once

#include "balance/balance_impl.h"
#include "kernels/array_impl.h"
#include "kernels/attention_impl.h"
#include "kernels/kernels.h"
#include "kernels/page_impl.h"
#include "predictor/conv_impl.h"

namespace kvsift {
namespace {

template <class V>
constexpr Kernels table = {array_kernels<V>, attention_kernels<V>, page_kernels<V>,
                           balance_kernels<V>, predictor_kernels<V>};

}  // namespace
}  // namespace kvsift

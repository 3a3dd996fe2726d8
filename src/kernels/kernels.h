// Tables of kernels, one for each instruction set. All levels give the same bits.
//
// To add a group of kernels of your own idea, in your own folder:
//   1. idea_kernels.h: `struct IdeaKernels` of function pointers (plain arguments; include it
//   below).
//   2. idea_impl.h: the kernels as templates over a vector class V (operations: see vec_scalar.h),
//   everything in
//      an anonymous namespace, and `template <class V> constexpr IdeaKernels idea_kernels = {...};`
//      at its end.
//   3. a member `IdeaKernels idea;` in Kernels, and `idea_kernels<V>` at its place in table.h.
// Rules: no calls of inline functions or std templates from the implementation (they would be weak
// symbols compiled for wide registers that the linker may hand to everybody); vectorise over
// outputs, or reduce lane-wise and end in reduce_add; multiply-add only by fma; never read beyond a
// row's last element (load_part).
#pragma once

#include <cstdint>

#include "balance/balance_kernels.h"
#include "kernels/array_kernels.h"
#include "kernels/attention_kernels.h"
#include "kernels/page_kernels.h"
#include "predictor/conv_kernels.h"

namespace kvsift {

enum class Level : std::uint32_t { scalar, avx2, avx512, neon };
constexpr std::uint32_t kLevels = 4;

struct Kernels {
  ArrayKernels array;
  AttentionKernels attention;
  PageKernels page;
  BalanceKernels balance;
  PredictorKernels predictor;
};

// Null where the level is not compiled in. Says nothing about what the machine can run.
const Kernels *kernels(Level level);

bool machine_has(Level level);

// Whether the machine multiplies int8 at this level in one instruction (AVX-512 VNNI).
bool machine_multiplies_int8(Level level);

// The best level that is compiled in and that processor and operating system support, or the one
// that the environment variable KVSIFT_CPU names where that can run.
Level best_level();

const char *level_name(Level level);

}  // namespace kvsift

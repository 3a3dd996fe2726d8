#include "policy/dense.h"

#include "policy/settings.h"

namespace kvsift {
namespace {

using Config = kvsift_policy_config;

// Cache lengths, in sixteenths of the budget, up to which a sparse step took longer than full attention: one thread,
// AVX-512, 32 query heads over 8 KV heads of dimension 128 in float16 (tests/bench/RESULTS.md). `more` is what each list
// of a KV head beyond the first adds.
struct Crossover {
  std::uint32_t shared, more;
};

constexpr std::uint32_t kMost = 96;  // a policy that is still slower there is taken at its word

Crossover crossover_of(const Config &c) {
  switch (c.method) {
    case KVSIFT_METHOD_STREAMING: return {16, 0};  // its lists are alike, and read as one
    case KVSIFT_METHOD_SNAPKV:
    case KVSIFT_METHOD_PYRAMIDKV:
    case KVSIFT_METHOD_UNIFORM: return {24, 13};
    case KVSIFT_METHOD_BALANCE: return {24, 0};
    case KVSIFT_METHOD_ATTENTION_PREDICTOR:
      if (c.history_floor > 0 && c.predict_period > 1 && c.predictor_arithmetic == KVSIFT_I8) return {28, 14};
      if (c.history_floor > 0 || c.predict_period > 1) return {40, 48};
      return {kMost, 0};
    default: return {25, 17};
  }
}

// Single tokens lie all over the cache, and ranking methods rank and list each of them.
Crossover scattered(const Config &c, Crossover x) {
  if (c.block_tokens >= 4 || c.method == KVSIFT_METHOD_STREAMING || c.method == KVSIFT_METHOD_BALANCE) return x;
  const bool once = c.method == KVSIFT_METHOD_SNAPKV || c.method == KVSIFT_METHOD_PYRAMIDKV ||
                    c.method == KVSIFT_METHOD_UNIFORM;
  if (once) return {x.shared + 20, x.more + 16};
  return c.method == KVSIFT_METHOD_H2O ? Crossover{60, 40} : Crossover{kMost, 0};
}

std::uint32_t sixteenths_of(const Config &c) {
  const Crossover x = scattered(c, crossover_of(c));
  const std::uint32_t lists = c.grouping == KVSIFT_GROUP_QUERY_HEAD ? c.query_heads / c.kv_heads : 1;
  std::uint32_t sum = x.shared + x.more * (lists - 1);
  if (c.tail == KVSIFT_TAIL_MOMENTS) sum += 3 * lists;
  if (c.tail == KVSIFT_TAIL_BALANCE) sum += 16;
  return sum < kMost ? sum : kMost;
}

}  // namespace

std::uint32_t dense_tokens_of(const Config &c) {
  if (c.dense_tokens == KVSIFT_DENSE_OFF || c.method == KVSIFT_METHOD_FULL) return 0;
  if (c.dense_tokens != 0) return c.dense_tokens;
  const std::uint32_t sixteenths = sixteenths_of(c);
  // A share that large stays too large however long the context.
  if (static_cast<double>(c.budget_share) * sixteenths >= 16) return UINT32_MAX;
  return static_cast<std::uint32_t>(std::uint64_t{c.budget_tokens} * sixteenths / 16);
}

}  // namespace kvsift

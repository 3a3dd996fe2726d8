// Groups of a pass, and their rows.
#pragma once

#include "cuda/balance/compress.h"
#include "cuda/policy/rows.cuh"

namespace kvsift {
namespace {

struct BalanceGroup {
  std::uint32_t head, first, count;  // of its head's tokens in this halving
  const std::uint32_t *index;
  const float *weight;
};

// Group `number` of the pass.
__device__ inline BalanceGroup group_of_pass(const BalanceArgs &args, std::uint32_t number) {
  const std::uint32_t group = args.first_group + number, head = group / args.groups;
  BalanceGroup g{head, group % args.groups * args.group, 0, nullptr, nullptr};
  g.count = args.count - g.first < args.group ? args.count - g.first : args.group;
  g.index = args.index + std::uint64_t{head} * args.tokens + g.first;
  g.weight = args.weight + std::uint64_t{head} * args.tokens + g.first;
  return g;
}

// Tells the host; the first fault stays.
__device__ inline void report(const BalanceArgs &args, std::uint32_t what, std::uint32_t head) {
  if (args.fault == nullptr || atomicCAS(&args.fault->what, static_cast<std::uint32_t>(kFaultNone), what) != 0) return;
  args.fault->layer = args.layer;
  args.fault->head = head;
  args.fault->tokens = args.begin + args.tokens;
}

__device__ inline DeviceRow row_of_member(const BalanceArgs &args, const kvsift_view &view, const BalanceGroup &group,
                                          std::uint32_t i) {
  const std::uint32_t head = args.first_head + group.head;
  const PageTable table{args.table == nullptr ? nullptr : args.table + std::uint64_t{head} * args.table_stride,
                        args.page_shift};
  const std::uint32_t token = group.index[i];
  if (table.entries != nullptr && table.entries[token >> table.shift] < 0) report(args, kFaultTable, head);
  return row_of_token(view, table, token, head);
}

}  // namespace
}  // namespace kvsift

// Rows of a group, read as the walk wants them: times their factor, cut off at kMostCoordinate.
#pragma once

#include "balance/balance_kernels.h"
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

__device__ inline DeviceRow row_of_member(const BalanceArgs &args, const kvsift_view &view, const BalanceGroup &group,
                                          std::uint32_t i) {
  const std::uint32_t head = args.first_head + group.head;
  const PageTable table{args.table == nullptr ? nullptr : args.table + std::uint64_t{head} * args.table_stride,
                        args.page_shift};
  return row_of_token(view, table, group.index[i], head);
}

__device__ inline float cut_off(float x) {
  x = x < kMostCoordinate ? x : kMostCoordinate;
  return x > -kMostCoordinate ? x : -kMostCoordinate;
}

__device__ inline float coordinate(const DeviceRow &row, kvsift_type type, float factor, std::uint32_t c) {
  return cut_off(element_at(row.data, type, c) * factor);
}

}  // namespace
}  // namespace kvsift

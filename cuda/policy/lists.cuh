// A selection list written by one block: sinks, chosen blocks and the newest tokens, as policy/lists.h writes it.
#pragma once

#include "cuda/core/block.cuh"
#include "cuda/policy/image.cuh"
#include "policy/select.h"

namespace kvsift {
namespace {

struct DeviceList {
  kvsift_range *ranges;
  std::uint32_t *range_count, *blocks, *block_count;
};

__device__ inline DeviceList list_of(const Image &image, std::uint32_t index) {
  return DeviceList{in_image<kvsift_range>(image, image.ranges) + std::uint64_t{index} * image.s.list_ranges,
                    in_image<std::uint32_t>(image, image.range_counts) + index,
                    in_image<std::uint32_t>(image, image.blocks) + std::uint64_t{index} * image.s.list_blocks,
                    in_image<std::uint32_t>(image, image.block_counts) + index};
}

// The first of n ascending numbers that is not below x.
__device__ inline std::uint32_t first_from(const std::uint32_t *numbers, std::uint32_t n, std::uint32_t x) {
  std::uint32_t low = 0, high = n;
  while (low < high) {
    const std::uint32_t middle = (low + high) / 2;
    if (numbers[middle] < x) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low;
}

// What a list keeps: tokens [0, sink_end), the chosen blocks, tokens [local_begin, tokens).
struct Parts {
  const std::uint32_t *chosen;  // ascending; those from local_begin on are not among the `count`
  std::uint32_t count, size;    // tokens a block
  std::uint32_t sink_end, local_begin, tokens;

  __device__ std::uint32_t sinks() const { return sink_end > 0 ? 1 : 0; }
  __device__ std::uint32_t items() const { return sinks() + count + 1; }
  __device__ kvsift_range item(std::uint32_t i) const {
    if (i < sinks()) return kvsift_range{0, sink_end};
    if (i == items() - 1) return kvsift_range{local_begin, tokens};
    const std::uint32_t begin = chosen[i - sinks()] * size;
    return kvsift_range{begin, size < tokens - begin ? begin + size : tokens};
  }
  __device__ bool begins_range(std::uint32_t i) const { return i == 0 || item(i).begin > item(i - 1).end; }

  // Blocks [0, sink_blocks) and [local_block, end_block) are named whether chosen or not.
  __device__ std::uint32_t sink_blocks() const { return blocks_of(sink_end, size); }
  __device__ std::uint32_t local_block() const {
    const std::uint32_t block = local_begin / size, least = sink_blocks();
    return block > least ? block : least;
  }
  __device__ std::uint32_t end_block() const { return blocks_of(tokens, size); }
};

// As first_from, by all threads of the block.
__device__ inline std::uint32_t count_below(const std::uint32_t *numbers, std::uint32_t n, std::uint32_t x) {
  std::uint32_t below = 0;
  for (std::uint32_t first = 0; first < n; first += blockDim.x) {
    const std::uint32_t i = first + threadIdx.x;
    below += static_cast<std::uint32_t>(__syncthreads_count(i < n && numbers[i] < x));
  }
  return below;
}

__device__ inline Parts parts_of(const Settings &s, const Ranking &r, const std::uint32_t *chosen, std::uint32_t count) {
  Parts p{chosen, 0, s.c.block_tokens, s.c.sink_tokens, r.tokens > r.local ? r.tokens - r.local : 0, r.tokens};
  if (p.sink_end > r.tokens) p.sink_end = r.tokens;
  p.count = count_below(chosen, count, blocks_of(p.local_begin, p.size));
  return p;
}

// Returns the tokens kept.
__device__ inline std::uint32_t write_ranges(const DeviceList &list, const Parts &parts) {
  std::uint32_t ranges = 0, kept = 0;
  const std::uint32_t items = parts.items();
  for (std::uint32_t first = 0; first < items; first += blockDim.x) {
    const std::uint32_t i = first + threadIdx.x;
    kvsift_range item{0, 0};
    std::uint32_t reached = 0;  // where the item before ends
    if (i < items) {
      item = parts.item(i);
      reached = i == 0 ? 0 : parts.item(i - 1).end;
      kept += item.end - (item.begin > reached ? item.begin : reached);
    }
    const bool begins = i < items && (i == 0 || item.begin > reached);
    std::uint32_t total;
    const std::uint32_t number = ranges + sum_before(begins ? 1 : 0, &total) + (begins ? 1 : 0) - 1;
    ranges += total;
    if (begins) list.ranges[number].begin = item.begin;
    if (i < items && (i + 1 == items || parts.begins_range(i + 1))) list.ranges[number].end = item.end;
  }
  if (threadIdx.x == 0) *list.range_count = ranges;
  return block_sum(kept);
}

__device__ inline void write_blocks(const DeviceList &list, const Parts &parts) {
  const std::uint32_t sinks = parts.sink_blocks(), local = parts.local_block(), end = parts.end_block();
  const std::uint32_t from = count_below(parts.chosen, parts.count, sinks), to = count_below(parts.chosen, parts.count, local);
  const std::uint32_t between = to > from ? to - from : 0, total = sinks + between + (end - local);
  for (std::uint32_t i = threadIdx.x; i < total; i += blockDim.x) {
    list.blocks[i] = i < sinks ? i : i < sinks + between ? parts.chosen[from + i - sinks] : local + i - sinks - between;
  }
  if (threadIdx.x == 0) *list.block_count = total;
}

__device__ inline void write_everything(const DeviceList &list, std::uint32_t tokens) {
  if (threadIdx.x != 0) return;
  list.ranges[0] = kvsift_range{0, tokens};
  *list.range_count = 1;
}

}  // namespace
}  // namespace kvsift

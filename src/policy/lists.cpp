#include "policy/lists.h"

namespace kvsift {
namespace {

struct ListRef {
  kvsift_range *ranges;
  std::uint32_t *range_count;
  std::uint32_t *blocks;
  std::uint32_t *block_count;
};

ListRef list_of(const HeadState &head, std::uint32_t list) {
  Policy *policy = head.policy;
  const std::uint64_t index = std::uint64_t{head.kv_head} * policy->s.lists + list;
  return {policy->ranges.in(policy) + index * policy->s.list_ranges, policy->range_counts.in(policy) + index,
          policy->blocks.in(policy) + index * policy->s.list_blocks, policy->block_counts.in(policy) + index};
}

void append(const ListRef &to, std::uint32_t begin, std::uint32_t end) {
  if (begin >= end) return;
  std::uint32_t &count = *to.range_count;
  if (count > 0 && begin <= to.ranges[count - 1].end) {
    if (end > to.ranges[count - 1].end) to.ranges[count - 1].end = end;
    return;
  }
  to.ranges[count++] = kvsift_range{begin, end};
}

void name_blocks(const ListRef &to, std::uint32_t block_tokens) {
  std::uint32_t next = 0;
  *to.block_count = 0;
  for (std::uint32_t i = 0; i < *to.range_count; ++i) {
    std::uint32_t block = to.ranges[i].begin / block_tokens;
    if (block < next) block = next;
    for (; block * block_tokens < to.ranges[i].end; ++block) to.blocks[(*to.block_count)++] = block;
    next = block;
  }
}

}  // namespace

std::uint32_t write_list(const HeadState &head, std::uint32_t list, const ListParts &parts) {
  const ListRef to = list_of(head, list);
  const std::uint32_t size = head.settings().c.block_tokens;
  *to.range_count = 0;
  append(to, 0, parts.sink_end);
  for (std::uint32_t i = 0; i < parts.count; ++i) {
    const std::uint32_t begin = parts.blocks[i] * size;
    if (begin >= parts.local_begin) break;
    const std::uint32_t left = parts.tokens - begin;
    append(to, begin, begin + (size < left ? size : left));
  }
  append(to, parts.local_begin, parts.tokens);
  name_blocks(to, size);
  std::uint32_t kept = 0;
  for (std::uint32_t i = 0; i < *to.range_count; ++i) kept += to.ranges[i].end - to.ranges[i].begin;
  return kept;
}

void write_everything(const HeadState &head, std::uint32_t list, std::uint32_t tokens) {
  const ListRef to = list_of(head, list);
  to.ranges[0] = kvsift_range{0, tokens};
  *to.range_count = 1;
}

std::uint32_t union_of_lists(const HeadState &head) {
  const std::uint32_t lists = head.settings().lists;
  std::uint32_t next[KVSIFT_MAX_GROUP] = {};
  std::uint32_t total = 0, reached = 0;
  for (;;) {
    std::uint32_t best = lists, begin = 0;
    for (std::uint32_t i = 0; i < lists; ++i) {
      const ListRef list = list_of(head, i);
      if (next[i] == *list.range_count) continue;
      if (best == lists || list.ranges[next[i]].begin < begin) {
        best = i;
        begin = list.ranges[next[i]].begin;
      }
    }
    if (best == lists) return total;
    const kvsift_range range = list_of(head, best).ranges[next[best]++];
    if (range.end <= reached) continue;
    total += range.end - (range.begin > reached ? range.begin : reached);
    reached = range.end;
  }
}

}  // namespace kvsift

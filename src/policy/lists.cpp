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

// Writes ascending stretches as ranges, those that touch as one. Without branches: whether single tokens touch cannot be
// foreseen.
class RangeWriter {
 public:
  explicit RangeWriter(kvsift_range *ranges) : ranges_(ranges) {}

  void add(std::uint32_t begin, std::uint32_t end) {
    const bool apart = begin > reached_;
    count_ += apart;
    begin_ = apart ? begin : begin_;
    reached_ = end > reached_ ? end : reached_;
    ranges_[count_ - 1] = kvsift_range{begin_, static_cast<std::uint32_t>(reached_)};
  }
  std::uint32_t count() const { return count_; }

 private:
  kvsift_range *ranges_;
  std::uint32_t count_ = 0, begin_ = 0;
  std::int64_t reached_ = -1;
};

std::uint32_t write_ranges(kvsift_range *ranges, const ListParts &parts, std::uint32_t chosen, std::uint32_t size) {
  RangeWriter to(ranges);
  if (parts.sink_end > 0) to.add(0, parts.sink_end);
  for (std::uint32_t i = 0; i < chosen; ++i) {
    const std::uint32_t begin = parts.blocks[i] * size, left = parts.tokens - begin;
    to.add(begin, begin + (size < left ? size : left));
  }
  if (parts.local_begin < parts.tokens) to.add(parts.local_begin, parts.tokens);
  return to.count();
}

// Blocks with a kept token: the sinks', the chosen and the newest.
std::uint32_t write_blocks(std::uint32_t *blocks, const ListParts &parts, std::uint32_t chosen, std::uint32_t size) {
  std::uint32_t count = 0, next = blocks_of(parts.sink_end, size), first = 0;
  for (; count < next; ++count) blocks[count] = count;
  while (first < chosen && parts.blocks[first] < next) ++first;
  for (std::uint32_t i = first; i < chosen; ++i) blocks[count++] = parts.blocks[i];
  if (parts.local_begin >= parts.tokens) return count;
  if (count > 0) next = blocks[count - 1] + 1;
  if (parts.local_begin / size > next) next = parts.local_begin / size;
  for (const std::uint32_t end = blocks_of(parts.tokens, size); next < end; ++next) blocks[count++] = next;
  return count;
}

}  // namespace

std::uint32_t write_list(const HeadState &head, std::uint32_t list, const ListParts &parts) {
  const ListRef to = list_of(head, list);
  const std::uint32_t size = head.settings().c.block_tokens;
  // Chosen blocks among the newest tokens are kept with them.
  std::uint32_t chosen = parts.count;
  while (chosen > 0 && parts.blocks[chosen - 1] * size >= parts.local_begin) --chosen;
  *to.range_count = write_ranges(to.ranges, parts, chosen, size);
  *to.block_count = write_blocks(to.blocks, parts, chosen, size);
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

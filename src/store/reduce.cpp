#include "store/reduce.h"

#include "core/status.h"

namespace kvsift {
namespace {

// One list's way from the selection to the store's copy.
class Writer {
 public:
  Writer(kvsift_range *ranges, std::uint32_t *blocks, std::uint32_t room, std::uint32_t block_tokens)
      : ranges_(ranges), blocks_(blocks), room_(room), block_tokens_(block_tokens) {}

  // False where the list is full.
  bool add(std::uint32_t begin, std::uint32_t end) {
    if (range_count > 0 && ranges_[range_count - 1].end == begin) {
      ranges_[range_count - 1].end = end;
    } else {
      if (range_count == room_) return false;
      ranges_[range_count++] = kvsift_range{begin, end};
    }
    for (std::uint32_t b = begin / block_tokens_; b <= (end - 1) / block_tokens_; ++b) {
      if (block_count > 0 && blocks_[block_count - 1] >= b) continue;
      if (block_count == room_) return false;
      blocks_[block_count++] = b;
    }
    return true;
  }

  std::uint32_t range_count = 0, block_count = 0;

 private:
  kvsift_range *ranges_;
  std::uint32_t *blocks_;
  std::uint32_t room_, block_tokens_;
};

// Copies the resident parts of a range; counts the others' blocks.
bool copy_range(const Geometry &g, const std::int32_t *table, kvsift_range range, Writer *writer, std::uint64_t *dropped,
                std::uint32_t *last_dropped) {
  for (std::uint32_t begin = range.begin; begin < range.end;) {
    const std::uint32_t block = begin >> g.block_shift;
    const std::uint32_t next = (block + 1) << g.block_shift;
    const std::uint32_t end = next < range.end ? next : range.end;
    if (table[block] >= 0) {
      if (!writer->add(begin, end)) return false;
    } else if (*last_dropped != block) {
      *last_dropped = block;
      ++*dropped;
    }
    begin = end;
  }
  return true;
}

}  // namespace

kvsift_status reduce(const Geometry &g, const std::int32_t *tables, const ReducedLists &to, kvsift_selection *selection,
                     std::uint64_t *dropped, kvsift_error *error) {
  const std::uint32_t group = selection->lists / g.kv_heads;
  std::uint64_t count = 0;
  for (std::uint32_t list = 0; list < selection->lists; ++list) {
    const kvsift_range *ranges = selection->ranges + std::uint64_t{list} * selection->range_stride;
    const std::int32_t *table = tables + std::uint64_t{list / group} * g.blocks;
    const std::uint64_t at = std::uint64_t{list} * to.most;
    Writer writer(to.ranges + at, to.blocks + at, to.most, selection->block_tokens);
    std::uint32_t last_dropped = UINT32_MAX;
    for (std::uint32_t r = 0; r < selection->range_counts[list]; ++r) {
      if (!copy_range(g, table, ranges[r], &writer, &count, &last_dropped)) {
        return fail(error, KVSIFT_CAPACITY, "resolve: list ", list, " of the reduced selection has more than max_ranges ",
                    to.most, " entries");
      }
    }
    to.range_counts[list] = writer.range_count;
    to.block_counts[list] = writer.block_count;
  }
  *dropped += count;
  selection->ranges = to.ranges;
  selection->range_counts = to.range_counts;
  selection->blocks = to.blocks;
  selection->block_counts = to.block_counts;
  selection->range_stride = selection->block_stride = to.most;
  selection->everything = 0;
  return KVSIFT_OK;
}

}  // namespace kvsift

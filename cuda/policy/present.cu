#include "cuda/policy/present.h"

#include "cuda/policy/lists.cuh"

namespace kvsift {
namespace {

// What a list chose, as items in ascending order: its ranges, or each page where it is everything.
struct Chosen {
  const kvsift_range *ranges;  // null: everything
  std::uint32_t count, tokens, shift;
  const std::int32_t *table;

  __device__ kvsift_range item(std::uint32_t i) const {
    if (ranges != nullptr) return ranges[i];
    const std::uint32_t begin = i << shift, end = begin + (1u << shift);
    return kvsift_range{begin, end < tokens ? end : tokens};
  }
  __device__ bool has(std::uint32_t token) const { return table[token >> shift] >= 0; }
  // Whether a token is chosen right before item i begins, or right after it ends, that the cache has too.
  __device__ bool follows(std::uint32_t i, std::uint32_t begin) const {
    return i > 0 && item(i - 1).end == begin && has(begin - 1);
  }
  __device__ bool goes_on(std::uint32_t i, std::uint32_t end) const {
    return i + 1 < count && item(i + 1).begin == end && has(end);
  }
  // Calls use(begin, end, whether a range begins there, whether one ends there) for the pages of item i that the cache has.
  template <class Use>
  __device__ void each_page(std::uint32_t i, Use use) const {
    const kvsift_range range = item(i);
    bool before = follows(i, range.begin);
    for (std::uint32_t begin = range.begin; begin < range.end;) {
      const std::uint32_t next = ((begin >> shift) + 1) << shift, end = next < range.end ? next : range.end;
      const bool here = has(begin);
      if (here) use(begin, end, !before, end < range.end ? !has(end) : !goes_on(i, end));
      before = here;
      begin = end;
    }
  }
};

__device__ inline Chosen chosen_by(const PresentArgs &args, const DeviceHead &head, std::uint32_t index) {
  const StepRecord step = *head.step();
  const DeviceList list = list_of(args.call.image, index);
  const std::int32_t *table = args.table + std::uint64_t{args.table_stride} * head.kv_head;
  const std::uint32_t shift = args.page_shift, pages = blocks_of(step.tokens, 1u << shift);
  if (step.everything != 0) return Chosen{nullptr, pages, step.tokens, shift, table};
  return Chosen{list.ranges, *list.range_count, step.tokens, shift, table};
}

}  // namespace
}  // namespace kvsift

using namespace kvsift;

KVSIFT_KERNEL(keep_present, PresentArgs, kPresentThreads) {
  const DeviceHead head = head_of(args.call);
  const Image &image = args.call.image;
  const std::uint32_t index = head.kv_head * image.s.lists + blockIdx.x;
  const auto most = static_cast<std::uint32_t>(image.room.present_ranges);
  const Chosen chosen = chosen_by(args, head, index);
  kvsift_range *ranges = in_image<kvsift_range>(image, image.room.present) + index * image.room.present_ranges;
  std::uint32_t written = 0, kept = 0;
  for (std::uint32_t first = 0; first < chosen.count; first += blockDim.x) {
    const std::uint32_t i = first + threadIdx.x;
    std::uint32_t begun = 0, total;
    if (i < chosen.count) {
      chosen.each_page(i, [&](std::uint32_t begin, std::uint32_t end, bool begins, bool) {
        begun += begins ? 1 : 0;
        kept += end - begin;
      });
    }
    std::uint32_t number = written + sum_before(begun, &total);
    written += total;
    if (i >= chosen.count || written > most) continue;
    chosen.each_page(i, [&](std::uint32_t begin, std::uint32_t end, bool begins, bool ends) {
      number += begins ? 1 : 0;
      if (begins) ranges[number - 1].begin = begin;
      if (ends) ranges[number - 1].end = end;
    });
  }
  kept = block_sum(kept);
  if (threadIdx.x != 0) return;
  if (written > most) report(args.call, kFaultCapacity, head.kv_head);  // cannot be, of lists as select makes them
  in_image<std::uint32_t>(image, image.room.present_counts)[index] = written > most ? 0 : written;
  in_image<std::uint32_t>(image, image.room.present_kept)[index] = written > most ? 0 : kept;
}

// How a pass is cut up: for each KV head, chunks of 256 kept tokens of its lists, each list's followed by chunks of 256 tokens
// of a coreset that it leaves, then chunks of 256 pages of the tail.
#pragma once

#include "cuda/attend/attend.h"
#include "cuda/policy/lists.cuh"

namespace kvsift {
namespace {

struct KeptRanges {
  const kvsift_range *ranges;
  std::uint32_t count;
};

struct AttendPlan {
  const AttendArgs &args;
  const DeviceHead &head;
  StepRecord step;
  bool active;      // this pass has something to do
  bool everything;  // its list is all tokens
  bool observes;    // it fills the observation
  bool apart;       // query heads have lists of their own
  bool tail;        // pages stand for what is left out
  bool coreset;     // or weighted tokens

  __device__ std::uint32_t lists() const { return apart ? head.settings().lists : 1; }
  __device__ std::uint32_t sharing() const { return apart ? 1 : head.settings().group; }
  __device__ std::uint32_t index_of(std::uint32_t list) const { return head.kv_head * head.settings().lists + list; }
  __device__ std::uint32_t kept(std::uint32_t list) const {
    if (args.tail_only != 0) return 0;
    if (everything) return step.tokens;
    const std::uint64_t counts = args.present != 0 ? head.image.room.present_kept : head.image.room.kept_counts;
    return in_image<std::uint32_t>(head.image, counts)[index_of(list)];
  }
  __device__ KeptRanges ranges(std::uint32_t list) const {
    const Image &image = head.image;
    const std::uint32_t index = index_of(list);
    if (args.present == 0) return KeptRanges{list_of(image, index).ranges, *list_of(image, index).range_count};
    return KeptRanges{in_image<kvsift_range>(image, image.room.present) + index * image.room.present_ranges,
                      in_image<std::uint32_t>(image, image.room.present_counts)[index]};
  }
  __device__ std::uint32_t left(std::uint32_t list) const {
    return coreset ? in_image<std::uint32_t>(head.image, head.image.room.left_counts)[index_of(list)] : 0;
  }
  __device__ std::uint32_t kept_chunks(std::uint32_t list) const { return blocks_of(kept(list), kChunk); }
  __device__ std::uint32_t chunks(std::uint32_t list) const { return kept_chunks(list) + blocks_of(left(list), kChunk); }
  __device__ std::uint32_t pages() const { return tail ? blocks_of(step.tokens, head.settings().c.page_tokens) : 0; }
  __device__ std::uint32_t tail_chunks() const { return blocks_of(pages(), kChunk); }
  __device__ std::uint32_t list_of_query(std::uint32_t g) const { return apart ? g : 0; }

  // Where query head `g` of the group keeps what its chunk in `slot` gave.
  __device__ std::uint64_t place(std::uint32_t g, std::uint32_t slot) const {
    return (std::uint64_t{head.kv_head} * head.settings().group + g) * head.image.room.slots + slot;
  }
  __device__ float *values(std::uint64_t place) const {
    return in_image<float>(head.image, head.image.room.values) + place * head.settings().dim16;
  }
  __device__ float *sums(std::uint64_t place) const { return in_image<float>(head.image, head.image.room.sums) + place * 2; }
  __device__ Carry *carry(std::uint64_t place) const {
    return in_image<Carry>(head.image, head.image.room.carries) + place;
  }
  __device__ std::uint64_t query_head(std::uint32_t g) const { return std::uint64_t{head.kv_head} * head.settings().group + g; }
  // While chunks come in, block_mass holds logarithms of block sums, of single tokens their weights in their chunk.
  __device__ bool keeps_weights() const { return head.settings().c.block_tokens == 1 && args.block_mass != nullptr; }
};

__device__ inline AttendPlan plan_of(const AttendArgs &args, const DeviceHead &head) {
  const StepRecord step = *head.step();
  const bool row_apart = step.calibration != 0 && step.everything == 0;
  AttendPlan plan{args, head, step, true, false, false, false, false, false};
  plan.active = args.row_only == 0 || row_apart;
  const bool whole = step.everything != 0 || args.row_only != 0;
  plan.everything = whole && (args.present == 0 || args.row_only != 0);
  plan.observes = (args.block_max != nullptr || args.block_mass != nullptr) && (args.row_only != 0 || !row_apart);
  plan.apart = head.settings().lists > 1 && !plan.everything;
  plan.tail = args.tail == KVSIFT_TAIL_MOMENTS && !whole;
  plan.coreset = args.tail == KVSIFT_TAIL_BALANCE && !whole;
  return plan;
}

}  // namespace
}  // namespace kvsift

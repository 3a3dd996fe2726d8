#include "cuda/policy/pages.h"

#include "cuda/policy/rows.cuh"
#include "cuda/policy/steps.h"
#include "cuda/policy/undo.cuh"

namespace kvsift {
namespace {

// The running statistics of one dimension; a thread has one.
struct Column {
  float mean, square, value;
  F16 low, high;
};

__device__ inline F16 half_below(F16 h) {
  if (h.bits == 0) return F16{0x8001u};
  return F16{static_cast<std::uint16_t>((h.bits & 0x8000u) != 0 ? h.bits + 1 : h.bits - 1)};
}
__device__ inline F16 half_down(float x) {
  const F16 h = narrow_half(x);
  return widen(h) > x ? half_below(h) : h;
}
__device__ inline F16 half_up(float x) {
  const F16 h = narrow_half(x);
  const F16 above = half_below(F16{static_cast<std::uint16_t>(h.bits ^ 0x8000u)});
  return widen(h) < x ? F16{static_cast<std::uint16_t>(above.bits ^ 0x8000u)} : h;
}

__device__ inline float welford(float x, std::uint32_t seen, float weight, float mean, float *square) {
  const float before = seen == 0 ? 0.0f : mean, step = x - before;
  const float after = seen == 0 ? x : __fmaf_rn(step, weight, before);
  if (square != nullptr) *square = seen == 0 ? 0.0f : __fmaf_rn(step, x - after, *square);
  return after;
}

struct PageWork {
  const Call &call;
  const KeysArgs *args;  // null: no rows come
  const DeviceHead &head;
  std::uint32_t column;  // of this thread; those from dim16 on have nothing to do but to wait

  __device__ bool idle() const { return column >= head.settings().dim16; }

  __device__ float element(const kvsift_view &view, std::uint32_t i, std::uint32_t fault) const {
    const DeviceRow row = row_of(view, 0, i, head.kv_head);
    const float x = column < head.settings().c.head_dim ? element_at(row.data, view.type, column) : 0.0f;
    const float scaled = x * row.scale;
    if (scaled - scaled != 0.0f) report(call, fault, head.kv_head);
    return scaled;
  }

  // Token `i` of the call joins `seen` others of its page.
  __device__ void append(std::uint32_t i, std::uint32_t seen, Column *c) const {
    if (idle()) return;
    const Settings &s = head.settings();
    const float weight = 1.0f / static_cast<float>(seen + 1), key = element(args->keys, i, kFaultKeys);
    c->mean = welford(key, seen, weight, c->mean, &c->square);
    if (s.value_moments) c->value = welford(element(args->values, i, kFaultValues), seen, weight, c->value, nullptr);
    if (!s.page_bounds) return;
    const float low = widen(c->low), high = widen(c->high);
    c->low = half_down(seen == 0 || key < low ? key : low);
    c->high = half_up(seen == 0 || key > high ? key : high);
  }

  __device__ Column open() const {
    const Settings &s = head.settings();
    Column c{};
    if (idle()) return c;
    const float *page = head.at<float>(head.image.at.open_page);
    const F16 *bounds = head.at<F16>(head.image.at.open_bounds);
    if (s.page_moments) {
      c.mean = page[column];
      c.square = page[s.dim16 + column];
      if (s.value_moments) c.value = page[2 * s.dim16 + column];
    }
    if (s.page_bounds) {
      c.low = bounds[column];
      c.high = bounds[s.dim16 + column];
    }
    return c;
  }

  __device__ void leave_open(const Column &c) const {
    const Settings &s = head.settings();
    if (idle()) return;
    float *page = head.at<float>(head.image.at.open_page);
    F16 *bounds = head.at<F16>(head.image.at.open_bounds);
    if (s.page_moments) {
      page[column] = c.mean;
      page[s.dim16 + column] = c.square;
      if (s.value_moments) page[2 * s.dim16 + column] = c.value;
    }
    if (s.page_bounds) {
      bounds[column] = c.low;
      bounds[s.dim16 + column] = c.high;
    }
  }

  // All threads must call it.
  __device__ void write_row(std::uint64_t array, std::uint64_t scales, std::uint32_t page, float x) const {
    const Settings &s = head.settings();
    const std::uint64_t at = std::uint64_t{page} * s.dim16 + column;
    if (s.c.moments_type != KVSIFT_I8) {
      if (!idle()) head.at<F16>(array)[at] = narrow_half(x);
      return;
    }
    __shared__ unsigned largest;
    if (threadIdx.x == 0) largest = 0;
    __syncthreads();
    // Magnitudes order as their bits do.
    if (!idle()) atomicMax(&largest, __float_as_uint(x) & 0x7fffffffu);
    __syncthreads();
    const float scale = __uint_as_float(largest) / 127.0f;
    const float inverse = scale < 0x1p-120f ? 0.0f : 1.0f / scale;
    const float rounded = (x * inverse + kRound) - kRound;
    if (!idle()) head.at<std::int8_t>(array)[at] = static_cast<std::int8_t>(static_cast<int>(rounded));
    if (threadIdx.x == 0) head.at<float>(scales)[page] = scale;
    __syncthreads();
  }

  // `count` tokens of the page are in `c`.
  __device__ void write_page(std::uint32_t page, std::uint32_t count, const Column &c) const {
    const Settings &s = head.settings();
    const UnitOffsets &at = head.image.at;
    if (s.page_moments) {
      const float variance = c.square * (1.0f / static_cast<float>(count));
      write_row(at.key_mean, at.key_mean_scale, page, c.mean);
      write_row(at.key_std, at.key_std_scale, page, __fsqrt_rn(0.0f > variance ? 0.0f : variance));
      if (s.value_moments) write_row(at.value_mean, at.value_mean_scale, page, c.value);
    }
    if (s.page_bounds && !idle()) {
      head.at<F16>(at.key_min)[std::uint64_t{page} * s.dim16 + column] = c.low;
      head.at<F16>(at.key_max)[std::uint64_t{page} * s.dim16 + column] = c.high;
    }
  }

  // Tokens [i, end) of the call in their order, each length remembered that the undo ring wants; `first` is the cache
  // length before the call.
  __device__ void in_order(std::uint32_t first, std::uint32_t i, std::uint32_t end, Column *c) const {
    const Settings &s = head.settings();
    const std::uint32_t size = s.c.page_tokens, single = s.c.rollback_tokens;
    while (i < end) {
      const std::uint32_t seen = (first + i) % size, left = args->tokens - i;
      std::uint32_t count = left > single ? left - single : 1;
      if (count > size - seen) count = size - seen;
      if (count == 1 && single > 0) {
        leave_open(*c);
        remember(head, first + i);
      }
      for (std::uint32_t t = 0; t < count; ++t) append(i + t, seen + t, c);
      i += count;
      if (seen + count == size || i == end) write_page((first + i - 1) / size, seen + count, *c);
    }
  }
};

// Step state as it was at `tokens` tokens, from the undo ring; false where the ring does not reach so far.
__device__ inline bool bring_back(const DeviceHead &head, std::uint32_t tokens) {
  const Image &image = head.image;
  Unit *unit = head.unit();
  if (slot_bytes(image) == 0) return true;
  const std::uint32_t *lengths = head.at<std::uint32_t>(image.at.undo_tokens);
  const std::uint32_t count = unit->undo_count;
  std::uint32_t back = 0;
  while (back < count && lengths[slot_at(head, back)] != tokens) ++back;
  if (back == count) return false;
  const std::uint32_t slot = slot_at(head, back);
  copy_by_block(head.at<char>(image.at.step_begin), head.at<char>(image.at.undo) + slot * slot_bytes(image), slot_bytes(image));
  __syncthreads();
  if (threadIdx.x == 0) {
    unit->undo_next = slot;
    unit->undo_count = count - back - 1;
  }
  return true;
}

}  // namespace
}  // namespace kvsift

using namespace kvsift;

// As kvsift_truncate does to a unit. A block for each sparse layer (x) and KV head (y).
KVSIFT_KERNEL(truncate_unit, TruncateArgs, 256) {
  const Settings &s = args.call.image.s;
  const DeviceHead head{args.call.image, s.c.dense_layers + blockIdx.x, blockIdx.y};
  Unit *unit = head.unit();
  const bool moved = unit->keys_seen > args.to;
  const bool changed = moved || unit->rows_seen > args.to || (args.evicts != 0 && unit->selected_for > args.to);
  __syncthreads();
  if (changed && !bring_back(head, args.to)) {
    if (threadIdx.x == 0) report(args.call, kFaultRollback, head.kv_head);
    return;
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    if (unit->keys_seen > args.to) unit->keys_seen = args.to;
    if (unit->rows_seen > args.to) unit->rows_seen = args.to;
    if (unit->selected_for > args.to) unit->selected_for = 0;
    if (blockIdx.x == 0) *head.marks() = HeadMarks{0, 0, 0, 0};
  }
  const std::uint32_t open = args.to % s.c.page_tokens;
  if (!moved || open == 0 || !(s.page_moments || s.page_bounds)) return;
  const PageWork work{args.call, nullptr, head, threadIdx.x};
  work.write_page(args.to / s.c.page_tokens, open, work.open());
}

KVSIFT_KERNEL(append_keys, KeysArgs, 256) {
  const DeviceHead head = head_of(args.call);
  const PageWork work{args.call, &args, head, threadIdx.x};
  const Settings &s = args.call.image.s;
  const std::uint32_t size = s.c.page_tokens, rollback = s.c.rollback_tokens;
  const std::uint32_t first = args.first_token == 0xffffffffu ? head.unit()->keys_seen : args.first_token;
  const std::uint32_t end = first + args.tokens;
  if (end > s.c.max_tokens) {
    if (threadIdx.x == 0) report(args.call, kFaultCapacity, head.kv_head);
    return;
  }
  // Whole pages [bulk_begin, bulk_end) can be worked on in any order: no length in them is remembered, and the page
  // before the first remembered one is not among them.
  const std::uint32_t bulk_begin = (first + size - 1) / size;
  std::uint32_t bulk_end = rollback == 0 ? (end - 1) / size : end > rollback ? (end - rollback) / size : 0;
  if (rollback > 0 && bulk_end > 0) --bulk_end;
  if (bulk_end < bulk_begin || gridDim.x == 1 || (rollback > 0 && size == 1)) bulk_end = bulk_begin;
  if (blockIdx.x > 0) {
    for (std::uint32_t page = bulk_begin + blockIdx.x - 1; page < bulk_end; page += gridDim.x - 1) {
      Column c{};
      for (std::uint32_t t = 0; t < size; ++t) work.append(page * size + t - first, t, &c);
      work.write_page(page, size, c);
    }
    return;
  }
  Column c = work.open();
  if (bulk_end > bulk_begin) {
    work.in_order(first, 0, bulk_begin * size - first, &c);
    work.in_order(first, bulk_end * size - first, args.tokens, &c);
  } else {
    work.in_order(first, 0, args.tokens, &c);
  }
  work.leave_open(c);
  __syncthreads();
  if (threadIdx.x == 0) head.unit()->keys_seen = end;
}

// A unit's coreset on the device, as struct Coreset is on the CPU (balance/coreset.h): the same bytes, worked on by one
// block. All threads must call these; the state is in shared memory meanwhile. The way back is in coreset_back.cuh, the end in
// coreset_end.cuh.
#pragma once

#include "cuda/balance/ahead.cuh"
#include "cuda/core/move.cuh"

namespace kvsift {
namespace {

struct CoresetShared {
  CoresetState state;
  HalveShared halve;
};

// What reads a unit's coreset.
struct DeviceCoreset {
  const CoresetShape &shape;
  CoresetState *state;
  std::uint32_t *tokens;
  float *weights;
};
__device__ inline DeviceCoreset coreset_of(const DeviceHead &head) {
  const UnitOffsets &at = head.image.at;
  return DeviceCoreset{head.settings().coreset, head.at<CoresetState>(at.coreset_state),
                       head.at<std::uint32_t>(at.coreset_tokens), head.at<float>(at.coreset_weights)};
}

__device__ inline std::uint32_t size_of(const CoresetState &state, std::uint32_t levels) {
  std::uint32_t sum = 0;
  for (std::uint32_t level = 0; level <= levels; ++level) sum += state.counts[level];
  return sum;
}

// Rows source(0), source(1) ... of `from` to rows 0, 1 ... of `to`, eight bytes at a time where that goes.
template <class Source>
__device__ inline void move_rows(F16 *to, const F16 *from, std::uint32_t dim, std::uint32_t count, Source source) {
  if (dim % 4 != 0) {
    move_down(to, std::uint64_t{count} * dim, [&](std::uint64_t i) {
      const auto at = static_cast<std::uint32_t>(i);
      return from + std::uint64_t{source(at / dim)} * dim + at % dim;
    });
    return;
  }
  const std::uint32_t pieces = dim / 4;
  const auto *words = reinterpret_cast<const uint2 *>(from);
  move_down(reinterpret_cast<uint2 *>(to), std::uint64_t{count} * pieces, [&](std::uint64_t i) {
    const auto at = static_cast<std::uint32_t>(i);
    return words + std::uint64_t{source(at / pieces)} * pieces + at % pieces;
  });
}

class CoresetWork {
 public:
  __device__ CoresetWork(const Call &call, const DeviceHead &head, CoresetShared *shared)
      : call_(call), head_(head), shape_(head.settings().coreset), shared_(shared), state_(shared->state) {
    const UnitOffsets &at = head.image.at;
    tokens_ = head.at<std::uint32_t>(at.coreset_tokens);
    weights_ = head.at<float>(at.coreset_weights);
    keys_ = head.at<F16>(at.coreset_keys);
    values_ = head.at<F16>(at.coreset_values);
    if (threadIdx.x == 0) state_ = *head.at<CoresetState>(at.coreset_state);
    __syncthreads();
  }
  __device__ void leave() const {
    if (threadIdx.x == 0) *head_.at<CoresetState>(head_.image.at.coreset_state) = state_;
    __syncthreads();
  }

  __device__ bool closed() const { return state_.closed != 0; }
  __device__ std::uint32_t end() const { return shape_.sinks + state_.reduced + state_.counts[0]; }

  // The call's rows from `first` on are tokens `token` ..., and come while there is room; returns how many.
  __device__ std::uint32_t push(const KeysArgs &args, std::uint32_t first, std::uint32_t token, const HalvingsAhead &ahead);
  __device__ void close();
  __device__ bool can_truncate(std::uint32_t length) const;
  __device__ void truncate(std::uint32_t length);

 private:
  __device__ std::uint32_t size() const { return size_of(state_, shape_.levels); }
  __device__ std::uint32_t top() const { return state_.counts[shape_.levels]; }
  __device__ void append(const kvsift_view &view, std::uint32_t fault, std::uint32_t first, std::uint32_t count, F16 *rows) const;
  __device__ void list_rows(std::uint32_t begin, std::uint32_t count, std::uint32_t listed);
  __device__ void reduce(std::uint32_t level, std::uint32_t begin, std::uint32_t count, const HalvingsAhead &ahead);
  __device__ void count_reduced(std::uint32_t level, std::uint32_t count, std::uint32_t kept);
  __device__ void take_top(std::uint32_t kept, std::uint32_t newest, std::uint32_t from);
  __device__ std::uint32_t halve(std::uint32_t count, std::uint32_t level) const;
  __device__ std::uint32_t take(const HalvingsAhead &ahead, std::uint32_t begin, std::uint32_t count, std::uint32_t level,
                                std::uint32_t number) const;

  __device__ char *slot(std::uint32_t i) const {
    return head_.at<char>(head_.image.at.coreset_backups) + std::uint64_t{i} * backup_bytes();
  }
  __device__ std::uint64_t list_bytes() const { return sizeof(CoresetState) + std::uint64_t{shape_.rows} * 8; }
  __device__ std::uint64_t backup_bytes() const {
    return (list_bytes() + std::uint64_t{shape_.rows} * shape_.dim * 4 + kAlign - 1) / kAlign * kAlign;
  }
  __device__ std::uint32_t reduced_at(const CoresetState &of, std::uint32_t length) const {
    const std::uint32_t before = shape_.sinks + shape_.lag + of.base;
    return of.base + (length < before ? 0 : (length - before) / shape_.group * shape_.group);
  }
  __device__ std::uint32_t slot_of(const CoresetState &of, std::uint32_t reduced) const {
    return (reduced - of.base) / shape_.group % shape_.backups;
  }
  __device__ char *before_end() const { return head_.at<char>(head_.image.at.coreset_before_end); }
  __device__ void save_lists(char *to) const;
  __device__ void restore_lists(const char *from);
  __device__ void back_up() const;
  __device__ void restore(const char *from);
  __device__ void forget_after(std::uint32_t length) const;

  const Call &call_;
  const DeviceHead &head_;
  const CoresetShape &shape_;
  CoresetShared *shared_;
  CoresetState &state_;
  std::uint32_t *tokens_;
  float *weights_;
  F16 *keys_, *values_;
};

__device__ inline void CoresetWork::append(const kvsift_view &view, std::uint32_t fault, std::uint32_t first,
                                           std::uint32_t count, F16 *rows) const {
  constexpr std::uint32_t kPieces = 8;
  const std::uint32_t all = count * shape_.dim;
  for (std::uint32_t begin = threadIdx.x; begin < all; begin += kPieces * blockDim.x) {
    float x[kPieces];
    with_element(view.type, [&](auto element) {
#pragma unroll
      for (std::uint32_t k = 0; k < kPieces; ++k) {
        const std::uint32_t i = begin + k * blockDim.x;
        if (i >= all) continue;
        const DeviceRow row = row_of(view, 0, first + i / shape_.dim, head_.kv_head);
        x[k] = widen(reinterpret_cast<const decltype(element) *>(row.data)[i % shape_.dim]) * row.scale;
      }
    });
#pragma unroll
    for (std::uint32_t k = 0; k < kPieces; ++k) {
      const std::uint32_t i = begin + k * blockDim.x;
      if (i >= all) continue;
      if (x[k] - x[k] != 0.0f) report(call_, fault, head_.kv_head);
      rows[i] = narrow_half(x[k]);
    }
  }
}

__device__ inline std::uint32_t CoresetWork::push(const KeysArgs &args, std::uint32_t first, std::uint32_t token,
                                                  const HalvingsAhead &ahead) {
  const std::uint32_t group = shape_.group, room = group + shape_.lag - state_.counts[0];
  const std::uint32_t left = args.tokens - first, n = left < room ? left : room;
  const std::uint32_t at = size(), row = at - top();
  append(args.keys, kFaultKeys, first, n, keys_ + std::uint64_t{row} * shape_.dim);
  append(args.values, kFaultValues, first, n, values_ + std::uint64_t{row} * shape_.dim);
  for (std::uint32_t i = threadIdx.x; i < n; i += blockDim.x) {
    tokens_[at + i] = token + i;
    weights_[at + i] = 1.0f;
  }
  __syncthreads();
  if (threadIdx.x == 0) state_.counts[0] += n;
  __syncthreads();
  if (n < room) return n;
  back_up();
  if (threadIdx.x == 0) state_.reduced += group;
  __syncthreads();
  for (std::uint32_t level = 0; level < shape_.levels; ++level) {
    const std::uint32_t full = level == 0 ? group : state_.counts[level];
    if (level > 0 && full <= group / 2) break;
    reduce(level, size() - state_.counts[0] - (level == 0 ? 0 : full), full, ahead);
  }
  return n;
}

// Puts rows of `count` entries before what the shared list has.
__device__ inline void CoresetWork::list_rows(std::uint32_t begin, std::uint32_t count, std::uint32_t listed) {
  HalveShared &list = shared_->halve;
  constexpr std::uint32_t kEach = KVSIFT_BALANCE_MAX_GROUP / kGramThreads;
  std::uint32_t order[kEach] = {};
  float weight[kEach] = {};
#pragma unroll
  for (std::uint32_t k = 0; k < kEach; ++k) {
    const std::uint32_t i = k * kGramThreads + threadIdx.x;
    if (i >= listed) continue;
    order[k] = list.order[i];
    weight[k] = list.weight[i];
  }
  __syncthreads();
#pragma unroll
  for (std::uint32_t k = 0; k < kEach; ++k) {
    const std::uint32_t i = k * kGramThreads + threadIdx.x;
    if (i >= listed) continue;
    list.order[count + i] = order[k];
    list.weight[count + i] = weight[k];
  }
  for (std::uint32_t i = threadIdx.x; i < count; i += blockDim.x) {
    list.order[i] = begin + i - top();
    list.weight[i] = weights_[begin + i];
  }
  __syncthreads();
}

__device__ inline std::uint32_t CoresetWork::halve(std::uint32_t count, std::uint32_t level) const {
  const CopiedRows rows{keys_, values_, tokens_ + top(), shape_.dim};
  return halve_list(halve_job(head_, rows, head_.kv_head), count, level, &shared_->halve);
}

// What was found ahead of the halving of entries [begin, begin + count), as rows.
__device__ inline std::uint32_t CoresetWork::take(const HalvingsAhead &ahead, std::uint32_t begin, std::uint32_t count,
                                                  std::uint32_t level, std::uint32_t number) const {
  const std::uint64_t at = ahead.place(level, number);
  const std::uint32_t kept = count / 2;
  for (std::uint32_t i = threadIdx.x; i < kept; i += blockDim.x) {
    const std::uint32_t token = ahead.tokens[at + i];
    std::uint32_t low = begin, high = begin + count;
    while (high - low > 1) {
      const std::uint32_t middle = (low + high) / 2;
      (tokens_[middle] <= token ? low : high) = middle;
    }
    shared_->halve.order[i] = low - top();
    shared_->halve.weight[i] = ahead.weights[at + i];
  }
  __syncthreads();
  return kept;
}

__device__ inline void CoresetWork::count_reduced(std::uint32_t level, std::uint32_t count, std::uint32_t kept) {
  __syncthreads();
  if (threadIdx.x == 0) {
    state_.counts[level] -= count;
    state_.counts[level + 1] += kept;
  }
  __syncthreads();
}

// Halves entries [begin, begin + count) of `level` in place and hands them to the next.
__device__ inline void CoresetWork::reduce(std::uint32_t level, std::uint32_t begin, std::uint32_t count,
                                           const HalvingsAhead &ahead) {
  const HalveShared &list = shared_->halve;
  const std::uint32_t first = begin - top(), behind = size() - begin - count, dim = shape_.dim;
  // Every second halving of a level is one of the next.
  const std::uint32_t number = (state_.reduced / shape_.group >> level) - 1;
  std::uint32_t kept;
  if (ahead.has(level, number)) {
    kept = take(ahead, begin, count, level, number);
  } else {
    list_rows(begin, count, 0);
    kept = halve(count, level);
  }
  move_down(tokens_ + begin, kept, [&](std::uint64_t i) { return tokens_ + top() + list.order[i]; });
  copy_down(weights_ + begin, list.weight, kept);
  copy_down(tokens_ + begin + kept, tokens_ + begin + count, behind);
  copy_down(weights_ + begin + kept, weights_ + begin + count, behind);
  // The top has no rows: those behind it move to the front.
  const bool to_top = level + 1 == shape_.levels;
  for (F16 *rows = keys_;; rows = values_) {
    F16 *to = rows + std::uint64_t{first} * dim;
    if (!to_top) move_rows(to, rows, dim, kept, [&](std::uint32_t i) { return list.order[i]; });
    to = to_top ? rows : to + std::uint64_t{kept} * dim;
    move_rows(to, rows, dim, behind, [&](std::uint32_t i) { return first + count + i; });
    if (rows == values_) break;
  }
  count_reduced(level, count, kept);
}

}  // namespace
}  // namespace kvsift

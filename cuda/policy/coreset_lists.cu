// The tail of a KV head's lists: its coreset as the CPU's selection has it (select_coreset of policy/coreset.cpp), and for each
// list what attention takes in of it, the tokens that the list does not keep.
#include "cuda/policy/coreset.h"

#include "cuda/balance/coreset_back.cuh"
#include "cuda/policy/lists.cuh"

namespace kvsift {
namespace {

// Whether a list keeps a token: one of its ranges, which ascend, holds it.
__device__ inline bool keeps(const kvsift_range *ranges, std::uint32_t count, std::uint32_t token) {
  std::uint32_t low = 0, high = count;
  while (low < high) {
    const std::uint32_t middle = (low + high) / 2;
    if (ranges[middle].end <= token) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low < count && ranges[low].begin <= token;
}

// A token of weight 1 stands for itself alone.
__device__ inline bool stands_for_more(float weight) { return weight != 1.0f; }

__device__ inline double block_sum(double x) {
  __shared__ double of_warp[kListThreads / kWarpThreads];
#pragma unroll
  for (unsigned step = 16; step > 0; step /= 2) x += __shfl_xor_sync(kAllLanes, x, step);
  if (threadIdx.x % kWarpThreads == 0) of_warp[threadIdx.x / kWarpThreads] = x;
  __syncthreads();
  x = 0.0;
  for (std::uint32_t w = 0; w < kListThreads / kWarpThreads; ++w) x += of_warp[w];
  __syncthreads();
  return x;
}

struct TailWork {
  const DeviceHead &head;
  const DeviceCoreset &coreset;
  std::uint32_t size, halved;  // all tokens, and those that were halved: they come first

  __device__ DeviceList list(std::uint32_t l) const { return list_of(head.image, head.kv_head * head.settings().lists + l); }

  // The weight that is left, added in order; for where the order tells.
  __device__ double weight_in_order(const DeviceList &list) const {
    __shared__ double sum;
    if (threadIdx.x == 0) {
      sum = 0.0;
      for (std::uint32_t i = 0; i < halved; ++i) {
        const float weight = coreset.weights[i];
        const bool kept = keeps(list.ranges, *list.range_count, coreset.tokens[i]);
        if (stands_for_more(weight) && !kept) sum += static_cast<double>(weight);
      }
    }
    __syncthreads();
    const double result = sum;
    __syncthreads();
    return result;
  }

  // As share_left of policy/coreset.cpp. Sums of floats that are not tiny are exact in any order: float64 holds the last bit of
  // each and the number of all tokens.
  __device__ double share_left(std::uint32_t l) const {
    constexpr float kTiny = 1.0f / 32;
    const DeviceList own = list(l);
    const std::uint32_t ranges = *own.range_count, first = coreset.shape.sinks, last = first + coreset.state->reduced;
    std::uint32_t exact = 0;
    double weight = 0.0;
    bool tiny = false;
    for (std::uint32_t r = threadIdx.x; r < ranges; r += blockDim.x) {
      const kvsift_range range = own.ranges[r];
      const std::uint32_t from = range.begin > first ? range.begin : first, to = range.end < last ? range.end : last;
      if (from < to) exact += to - from;
    }
    for (std::uint32_t i = threadIdx.x; i < halved; i += blockDim.x) {
      if (keeps(own.ranges, ranges, coreset.tokens[i])) continue;
      const float w = coreset.weights[i];
      if (stands_for_more(w)) {
        weight += static_cast<double>(w);
      } else {
        ++exact;
      }
      tiny = tiny || w < kTiny;
    }
    const double left = static_cast<double>(last - first) - static_cast<double>(block_sum(exact));
    weight = __syncthreads_or(tiny) != 0 ? weight_in_order(own) : block_sum(weight);
    return weight > 0.0 && left > 0.0 ? left / weight : 1.0;
  }

  // Where blocks are chosen beside it, what its weights are scaled by.
  __device__ double factor() const {
    const Settings &s = head.settings();
    if (s.c.method == KVSIFT_METHOD_BALANCE) return 1.0;
    double sum = 0.0;
    for (std::uint32_t l = 0; l < s.lists; ++l) sum += share_left(l) / s.lists;
    return sum;
  }

  __device__ void write(double factor) const {
    const Image &image = head.image;
    const std::uint64_t at = std::uint64_t{head.kv_head} * coreset.shape.most();
    std::uint32_t *tokens = in_image<std::uint32_t>(image, image.coreset) + at;
    float *weights = in_image<float>(image, image.coreset_weights) + at;
    for (std::uint32_t i = threadIdx.x; i < size; i += blockDim.x) {
      const float w = coreset.weights[i];
      tokens[i] = coreset.tokens[i];
      weights[i] = stands_for_more(w) ? static_cast<float>(static_cast<double>(w) * factor) : w;
    }
    if (threadIdx.x == 0) in_image<std::uint32_t>(image, image.coreset_counts)[head.kv_head] = size;
    __syncthreads();
    for (std::uint32_t l = 0; l < head.settings().lists; ++l) write_left(l, tokens, weights);
  }

  // What the list leaves of it.
  __device__ void write_left(std::uint32_t l, const std::uint32_t *tokens, const float *weights) const {
    const Image &image = head.image;
    const DeviceList own = list(l);
    const std::uint64_t index = std::uint64_t{head.kv_head} * head.settings().lists + l, at = index * coreset.shape.most();
    std::uint32_t *left = in_image<std::uint32_t>(image, image.room.left) + at, count = 0;
    float *logs = in_image<float>(image, image.room.left_logs) + at;
    for (std::uint32_t first = 0; first < size; first += blockDim.x) {
      const std::uint32_t i = first + threadIdx.x, token = i < size ? tokens[i] : 0;
      const float weight = i < size ? weights[i] : 0.0f;
      const bool counts = weight > 0.0f && !keeps(own.ranges, *own.range_count, token);
      std::uint32_t total;
      const std::uint32_t to = count + sum_before(counts ? 1 : 0, &total);
      if (counts) {
        left[to] = token;
        logs[to] = log1(weight);
      }
      count += total;
    }
    if (threadIdx.x == 0) in_image<std::uint32_t>(image, image.room.left_counts)[index] = count;
  }
};

}  // namespace
}  // namespace kvsift

using namespace kvsift;

// A block for each KV head.
KVSIFT_KERNEL(coreset_lists, ListCoresetArgs, kListThreads) {
  const DeviceHead head = head_of(args.call);
  if (head.step()->everything != 0) return;
  const DeviceCoreset coreset = coreset_of(head);
  const std::uint32_t size = size_of(*coreset.state, coreset.shape.levels);
  const TailWork work{head, coreset, size, size - coreset.state->counts[0]};
  work.write(work.factor());
}

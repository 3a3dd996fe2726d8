#include "cuda/attend/prefill.h"

#include "attend/chunk.h"
#include "cuda/policy/image.cuh"
#include "cuda/policy/rows.cuh"

using namespace kvsift;

namespace {

constexpr std::uint32_t kTokensAtOnce = kPrefillThreads / 2;  // a pair of threads each
// One float more every 32, so that the lanes of a block's sum lie in different banks.
constexpr std::uint32_t kRowFloats = kChunk + kChunk / 32;

struct ChunkRoom {
  alignas(16) float queries[kPrefillItems][KVSIFT_MAX_HEAD_DIM];
  float logits[kPrefillItems][kRowFloats], shares[kPrefillItems][kRowFloats];
};

__device__ std::uint32_t slot_of(std::uint32_t t) { return t + t / 32; }

__device__ std::uint32_t items_of(const PrefillArgs &args) { return args.rows * args.call.image.s.group; }

// Tokens that an item sees.
__device__ std::uint32_t seen(const PrefillArgs &args, std::uint32_t item) {
  return args.call.tokens - (args.rows - 1 - item / args.call.image.s.group);
}

__device__ std::uint64_t index_of(const PrefillArgs &args, std::uint32_t item) {
  return std::uint64_t{blockIdx.z} * items_of(args) + item;
}

__device__ void load_queries(const PrefillArgs &args, std::uint32_t head, std::uint32_t first, ChunkRoom *room) {
  const Settings &s = args.call.image.s;
  for (std::uint32_t i = threadIdx.x; i < kPrefillItems * s.dim16; i += kPrefillThreads) {
    const std::uint32_t item = first + i / s.dim16, c = i % s.dim16;
    float x = 0.0f;
    if (item < items_of(args) && c < s.c.head_dim) {
      const DeviceRow row = row_of(args.queries, 0, args.first_row + item / s.group, head * s.group + item % s.group);
      x = element_at(row.data, args.queries.type, c) * row.scale;
    }
    room->queries[i / s.dim16][c] = x;
  }
}

template <class T>
__device__ void load_part(const T *row, std::uint32_t c, std::uint32_t dim, bool aligned, float (&out)[8]) {
  if (aligned && c + 8 <= dim) {
    load8(row + c, out);
    return;
  }
#pragma unroll
  for (std::uint32_t i = 0; i < 8; ++i) out[i] = c + i < dim ? widen(row[c + i]) : 0.0f;
}

// Logits of one token for all items; the pair's even thread has lanes 0 .. 7, the odd one the others.
template <class T>
__device__ void dot_token(const PrefillArgs &args, const T *row, const ChunkRoom &room, float (&logit)[kPrefillItems]) {
  const Settings &s = args.call.image.s;
  float sum[kPrefillItems][8] = {};
  for (std::uint32_t c = threadIdx.x % 2 * 8; row != nullptr && c < s.dim16; c += 16) {
    float key[8];
    load_part(row, c, s.c.head_dim, args.aligned != 0, key);
#pragma unroll
    for (std::uint32_t n = 0; n < kPrefillItems; ++n) {
      float x[8];
      load8(room.queries[n] + c, x);
#pragma unroll
      for (int i = 0; i < 8; ++i) sum[n][i] = __fmaf_rn(x[i], key[i], sum[n][i]);
    }
  }
#pragma unroll
  for (std::uint32_t n = 0; n < kPrefillItems; ++n) logit[n] = tree16_of_pair(sum[n], kAllLanes);
}

template <class T>
__device__ void dot_chunk(const PrefillArgs &args, std::uint32_t head, std::uint32_t base, std::uint32_t first,
                          ChunkRoom *room) {
  const PageTable table{args.table == nullptr ? nullptr : args.table + std::uint64_t{head} * args.table_stride,
                        args.page_shift};
  const std::uint32_t items = items_of(args), last = first + kPrefillItems < items ? first + kPrefillItems : items;
  const std::uint32_t end = seen(args, last - 1);
  for (std::uint32_t t = threadIdx.x / 2; t < kChunk; t += kTokensAtOnce) {
    const bool there = base + t < end;
    DeviceRow row{nullptr, 1.0f};
    if (there) row = row_of_token(args.keys, table, base + t, head);
    float logit[kPrefillItems];
    dot_token(args, reinterpret_cast<const T *>(row.data), *room, logit);
#pragma unroll
    for (std::uint32_t n = 0; n < kPrefillItems; ++n) {
      if (threadIdx.x % 2 != 0) continue;
      const bool visible = first + n < items && base + t < seen(args, first + n);
      const float scaled = args.keys.scales == nullptr ? logit[n] : logit[n] * row.scale;
      room->logits[n][slot_of(t)] = visible ? scaled * args.call.image.s.scale : -infinity();
    }
  }
}

__device__ float warp_max(float x) {
#pragma unroll
  for (unsigned step = 16; step > 0; step /= 2) {
    const float other = __shfl_xor_sync(kAllLanes, x, step);
    x = other > x ? other : x;
  }
  return x;
}

// exp(logit - max) of an item's chunk, and its sum: lane i of 16 adds i, i + 16 ..., then the tree.
__device__ float soften(const float *logits, float max, float *shares) {
  const std::uint32_t lane = threadIdx.x % kWarpThreads;
#pragma unroll
  for (std::uint32_t t = lane; t < kChunk; t += kWarpThreads) shares[slot_of(t)] = exp1(logits[slot_of(t)] - max);
  __syncwarp();
  float sum = 0.0f;
#pragma unroll
  for (std::uint32_t t = lane % 16; t < kChunk; t += 16) sum += shares[slot_of(t)];
#pragma unroll
  for (unsigned half = 8; half > 0; half /= 2) sum += __shfl_xor_sync(kAllLanes, sum, half);
  return sum;
}

struct Stretch {
  std::uint32_t begin, end;  // within the chunk
};

__device__ float sum_stretch(const float *shares, const Stretch &part) {
  if (part.end - part.begin == 1) return shares[slot_of(part.begin)];
  float lane[16] = {};
  for (std::uint32_t t = part.begin; t < part.end; t += 16) {
#pragma unroll
    for (std::uint32_t i = 0; i < 16; ++i) lane[i] += t + i < part.end ? shares[slot_of(t + i)] : 0.0f;
  }
  return tree16(lane);
}

// The blocks that the chunk has a part of: a lane for each.
__device__ void put_parts(const PrefillArgs &args, const ChunkRoom &room, std::uint32_t n, std::uint32_t item,
                          std::uint32_t base, float max) {
  const std::uint32_t size = args.call.image.s.c.block_tokens, limit = seen(args, item);
  const std::uint32_t end = limit - base < kChunk ? limit : base + kChunk, first = base / size;
  const std::uint64_t to = (index_of(args, item) * args.room.chunks + base / kChunk) * args.room.parts;
  for (std::uint32_t p = threadIdx.x % kWarpThreads; first + p <= (end - 1) / size; p += kWarpThreads) {
    const std::uint32_t begin = (first + p) * size, after = size < end - begin ? begin + size : end;
    const Stretch part{begin < base ? 0 : begin - base, after - base};
    float peak = -infinity();
    for (std::uint32_t t = part.begin; t < part.end; ++t) {
      const float x = room.logits[n][slot_of(t)];
      peak = x > peak ? x : peak;
    }
    args.room.peak[to + p] = peak;
    if (args.with_mass != 0 && size > 1) args.room.mass[to + p] = max + log1(sum_stretch(room.shares[n], part));
  }
}

__device__ bool is_finite(float x) { return x - x == 0.0f; }

}  // namespace

// Blocks: [chunks][items / kPrefillItems][KV heads].
KVSIFT_KERNEL(prefill_chunks, PrefillArgs, kPrefillThreads) {
  __shared__ ChunkRoom room;
  const std::uint32_t base = blockIdx.x * kChunk, first = blockIdx.y * kPrefillItems;
  const std::uint32_t head = args.call.first_head + blockIdx.z, items = items_of(args);
  const std::uint32_t last = first + kPrefillItems < items ? first + kPrefillItems : items;
  if (base >= seen(args, last - 1)) return;
  load_queries(args, head, first, &room);
  __syncthreads();
  switch (args.keys.type) {
    case KVSIFT_F16: dot_chunk<F16>(args, head, base, first, &room); break;
    case KVSIFT_BF16: dot_chunk<BF16>(args, head, base, first, &room); break;
    case KVSIFT_I8: dot_chunk<std::int8_t>(args, head, base, first, &room); break;
    default: dot_chunk<float>(args, head, base, first, &room);
  }
  __syncthreads();
  const std::uint32_t n = threadIdx.x / kWarpThreads, item = first + n, lane = threadIdx.x % kWarpThreads;
  if (item >= items || base >= seen(args, item)) return;
  float max = -infinity();
#pragma unroll
  for (std::uint32_t t = lane; t < kChunk; t += kWarpThreads) {
    const float x = room.logits[n][slot_of(t)];
    max = x > max ? x : max;
  }
  max = warp_max(max);
  const float sum = soften(room.logits[n], max, room.shares[n]);
  __syncwarp();
  put_parts(args, room, n, item, base, max);
  if (lane != 0) return;
  const std::uint64_t to = index_of(args, item) * args.room.chunks + blockIdx.x;
  args.room.chunk_max[to] = max;
  args.room.chunk_sum[to] = sum;
}

// Blocks: [items / 32][1][KV heads]; a thread for each item.
KVSIFT_KERNEL(prefill_merge, PrefillArgs, 32) {
  const std::uint32_t item = blockIdx.x * blockDim.x + threadIdx.x;
  if (item >= items_of(args)) return;
  const std::uint64_t index = index_of(args, item);
  const float *chunk_max = args.room.chunk_max + index * args.room.chunks;
  const float *chunk_sum = args.room.chunk_sum + index * args.room.chunks;
  const std::uint32_t chunks = (seen(args, item) + kChunk - 1) / kChunk;
  float max = -infinity(), sum = 0.0f;
#pragma unroll 4
  for (std::uint32_t c = 0; c < chunks; ++c) {
    const float larger = max > chunk_max[c] ? max : chunk_max[c];
    sum = __fmaf_rn(exp1(max - larger), sum, exp1(chunk_max[c] - larger) * chunk_sum[c]);
    max = larger;
  }
  const float log_sum = sum > 0.0f ? max + log1(sum) : -infinity();
  args.room.log_sums[index] = log_sum;
  if (!is_finite(log_sum)) report(args.call, kFaultAttention, args.call.first_head + blockIdx.z);
}

namespace {

// A block's largest share and its mass in one item's row: its parts in chunks, in order.
__device__ void pool_block(const PrefillArgs &args, std::uint32_t item, std::uint32_t block, float *peak, float *mass) {
  const std::uint32_t size = args.call.image.s.c.block_tokens, limit = seen(args, item);
  const std::uint32_t begin = block * size, end = size < limit - begin ? begin + size : limit;
  const std::uint64_t index = index_of(args, item);
  float largest = -infinity(), sum = -infinity();
  for (std::uint32_t c = begin / kChunk; c <= (end - 1) / kChunk; ++c) {
    const std::uint64_t at = (index * args.room.chunks + c) * args.room.parts + (block - c * kChunk / size);
    const float x = args.room.peak[at];
    largest = x > largest ? x : largest;
    if (args.with_mass == 0 || size == 1) continue;
    const float share = args.room.mass[at];
    if (sum > -infinity()) {
      const float larger = sum > share ? sum : share;
      sum = larger + log1(exp1(sum - larger) + exp1(share - larger));
    } else {
      sum = share;
    }
  }
  const float log_sum = args.room.log_sums[index];
  *peak = exp1(largest - log_sum);
  *mass = exp1(sum - log_sum);
  if (size > 1) return;
  const float chunk_max = args.room.chunk_max[index * args.room.chunks + begin / kChunk];
  *mass = exp1(largest - chunk_max) * exp1(chunk_max - log_sum);
}

// One step of reduce_rows of policy/group.h.
__device__ float reduced(std::uint32_t grouping, float all, float x) {
  if (grouping == KVSIFT_GROUP_MEAN) return all + x;
  return x > all ? x : all;
}

}  // namespace

// Blocks: [blocks / 256][rows][KV heads]; a thread for each block.
KVSIFT_KERNEL(prefill_pool, PrefillArgs, 256) {
  const Settings &s = args.call.image.s;
  const std::uint32_t row = blockIdx.y, block = blockIdx.x * blockDim.x + threadIdx.x;
  if (block >= blocks_of(seen(args, row * s.group), s.c.block_tokens)) return;
  const bool each = s.c.grouping == KVSIFT_GROUP_QUERY_HEAD;
  const std::uint64_t to = ((std::uint64_t{row} * args.heads + blockIdx.z) * s.lists) * args.room.block_stride + block;
  float all_peak = 0.0f, all_mass = 0.0f;
  for (std::uint32_t g = 0; g < s.group; ++g) {
    float peak, mass;
    pool_block(args, row * s.group + g, block, &peak, &mass);
    all_peak = g == 0 || each ? peak : reduced(s.c.grouping, all_peak, peak);
    all_mass = g == 0 || each ? mass : reduced(s.c.grouping, all_mass, mass);
    if (!each && g + 1 < s.group) continue;
    const std::uint64_t at = to + (each ? g * args.room.block_stride : 0);
    if (s.c.grouping == KVSIFT_GROUP_MEAN) {
      const float share = 1.0f / static_cast<float>(s.group);
      all_peak = share * all_peak;
      all_mass = share * all_mass;
    }
    args.room.pooled_peak[at] = all_peak;
    if (args.with_mass != 0) args.room.pooled_mass[at] = all_mass;
  }
}

// A block for each KV head: its rows were learnt from.
KVSIFT_KERNEL(prefill_seen, PrefillArgs, 32) {
  if (threadIdx.x == 0) head_of(args.call).unit()->rows_seen = args.call.tokens;
}

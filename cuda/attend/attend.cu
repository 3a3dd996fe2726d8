#include "cuda/attend/attend.h"

#include <type_traits>

#include "cuda/attend/coreset.cuh"
#include "cuda/attend/dense_observe.cuh"
#include "cuda/attend/observe.cuh"
#include "cuda/attend/tail.cuh"
#include "cuda/policy/queries.cuh"

namespace kvsift {
namespace {

// Query heads that a thread weighs values for.
template <class T>
constexpr int kMostOf = std::is_same<T, AnyType>::value ? 8 : 4;

// Chunk `chunk` of a list, or of the coreset behind it, for the query heads that share it.
template <class T>
__device__ inline void kept_chunk(const AttendPlan &plan, const ChunkRows &rows, std::uint32_t list, std::uint32_t chunk,
                                  ChunkShared *shared) {
  __shared__ BlockShared blocks;
  const Settings &s = plan.head.settings();
  const std::uint32_t own = plan.kept_chunks(list);
  const bool weighted = chunk >= own;
  const std::uint32_t left = weighted ? plan.left(list) - (chunk - own) * kChunk : plan.kept(list) - chunk * kChunk;
  const std::uint32_t count = left < kChunk ? left : kChunk;
  const std::uint64_t place = weighted ? coreset_place(plan, list, chunk - own) : 0;
  const std::uint32_t first_query = plan.apart ? list : 0, heads = plan.sharing();
  const bool values = plan.args.row_only == 0;
  if (weighted) {
    find_coreset_tokens(plan, place, count, shared);
  } else {
    find_tokens(plan, list, chunk * kChunk, count, shared);
  }
  find_rows(plan, count, shared);
  __syncthreads();
  const std::uint32_t columns = std::is_same<T, AnyType>::value ? s.dim16 : s.c.head_dim;
  const ValueRows value_rows{&plan.args.cache.values, columns, s.c.head_dim, count};
  fetch_keys<T>(plan, rows, count);
  if (values) {
    fetch_stage<T>(value_rows, *shared, 0, rows.stage);
    fetch_stage<T>(value_rows, *shared, 1, rows.stage);
    wait_copies<2>();
  } else {
    wait_copies<0>();
  }
  __syncthreads();
  dot_chunk<T>(plan, rows, first_query, heads, count);
  if (weighted) add_log_weights(plan, place, heads, count, rows.logits);
  if (plan.observes && !weighted) {
    const bool last = chunk + 1 == own;
    const ChunkBlocks work = begin_blocks(plan, *shared, count, first_query, heads, chunk, last, &blocks);
    put_maxima(work, rows.logits);
    __syncthreads();
    soften(rows.logits, heads, count, shared);
    put_masses(work, rows.logits);
  } else {
    soften(rows.logits, heads, count, shared);
  }
  if (threadIdx.x < heads) keep_sums(plan, *shared, first_query + threadIdx.x, chunk, threadIdx.x);
  if (!values) return;
  weigh_chunk<T, kMostOf<T>>(value_rows, *shared, rows, heads, [&](std::uint32_t h, std::uint32_t column, float a, float b) {
    float *to = plan.values(plan.place(first_query + h, chunk)) + column;
    to[0] = a;
    to[1] = b;
  });
}

template <class T>
__device__ inline void attend_chunks(const AttendPlan &plan, char *dynamic) {
  const AttendArgs &args = plan.args;
  const std::uint32_t element = std::is_same<T, AnyType>::value ? 4 : sizeof(T);
  const ChunkRows rows = chunk_rows(dynamic, args.call.image.s, element, args.near_keys != 0);
  ChunkShared *shared = rows.shared;
  widen_queries(args.call, plan.head, args.query, rows.queries, false);
  if (plan.tail && args.logits_of_selection != 0 && are_others(plan, rows.queries)) {
    if (threadIdx.x == 0) report(args.call, kFaultOtherQuery, plan.head.kv_head);
  }
  std::uint32_t item = blockIdx.x;
  for (std::uint32_t list = 0; list < plan.lists(); ++list) {
    const std::uint32_t chunks = plan.chunks(list);
    for (; item < chunks; item += gridDim.x) {
      kept_chunk<T>(plan, rows, list, item, shared);
      __syncthreads();
    }
    item -= chunks;
  }
  const auto first_slot = [&](std::uint32_t g) { return plan.chunks(plan.list_of_query(g)); };
  for (; item < plan.tail_chunks(); item += gridDim.x) tail_chunk<kMostOf<T>>(plan, rows, item, first_slot);
}

// Keys of a warp's chunk to logits, while what comes next is on its way: the values' first stages follow the keys' last.
template <class T, int Tiles>
__device__ inline void dense_logits(const DenseChunk<Tiles> &chunk, bool values, RowSource *value_source) {
  const CacheArgs &cache = chunk.plan.args.cache;
  const std::uint32_t stages = chunk.stages();
  RowSource source = dense_start(chunk, cache.keys);
  fetch_rows<T>(chunk, cache.keys, 0, 0, &source);
  if (stages > 1) fetch_rows<T>(chunk, cache.keys, 1, 1, &source);
  if (stages == 1) values ? fetch_rows<T>(chunk, cache.values, 0, 1, value_source) : end_copies();
  for (std::uint32_t stage = 0; stage < stages; ++stage) {
    const std::uint32_t next = stage + 2;
    wait_copies<1>();
    __syncwarp();
    dot_rows<T>(chunk, stage, stage % 2);
    __syncwarp();
    if (next < stages) {
      fetch_rows<T>(chunk, cache.keys, next, next % 2, &source);
    } else if (values && next - stages < stages) {
      fetch_rows<T>(chunk, cache.values, next - stages, next % 2, value_source);
    } else {
      end_copies();
    }
  }
}

// One warp's chunk.
template <class T, int Tiles>
__device__ inline void dense_chunk(DenseChunk<Tiles> *chunk) {
  const AttendPlan &plan = chunk->plan;
  const bool values = plan.args.row_only == 0;
  const std::uint32_t stages = chunk->stages(), lane = lane_of_warp(), heads = chunk->heads();
  RowSource source = dense_start(*chunk, plan.args.cache.values);
  dense_logits<T>(*chunk, values, &source);
  if (plan.observes) put_maxima(DenseBlocks<Tiles>(*chunk));
  soften_warp(chunk);
  if (plan.observes) put_masses(DenseBlocks<Tiles>(*chunk));
#pragma unroll
  for (int i = 0; i < 4 * Tiles; ++i) {
    if (lane != static_cast<std::uint32_t>(i) || lane >= heads) continue;
    float *sums = plan.sums(plan.place(i, chunk->slot));
    sums[0] = chunk->max[i / 4][i % 4];
    sums[1] = chunk->sum[i / 4][i % 4];
  }
  if (!values) return;
  const std::uint32_t column = 4 * lane < plan.head.settings().c.head_dim ? 4 * lane : 0;
  float acc[Tiles][4][4] = {};
  for (std::uint32_t stage = 0; stage < stages; ++stage) {
    const std::uint32_t slot = (stages + stage) % 2;
    wait_copies<1>();
    __syncwarp();
    add_values<T>(*chunk, stage, slot, column, acc);
    __syncwarp();
    if (stage + 2 < stages) {
      fetch_rows<T>(*chunk, plan.args.cache.values, stage + 2, slot, &source);
    } else {
      end_copies();
    }
  }
#pragma unroll
  for (int i = 0; i < 4 * Tiles; ++i) {
    if (static_cast<std::uint32_t>(i) >= heads || column != 4 * lane) continue;
    const float(&v)[4] = acc[i / 4][i % 4];
    *reinterpret_cast<float4 *>(plan.values(plan.place(i, chunk->slot)) + column) = make_float4(v[0], v[1], v[2], v[3]);
  }
}

template <class T, int Tiles>
__device__ inline void attend_dense(const AttendPlan &plan, char *dynamic) {
  const Settings &s = plan.head.settings();
  const DenseRoom room = dense_room(s, Tiles, sizeof(T));
  auto *queries = reinterpret_cast<float *>(dynamic);
  widen_queries(plan.args.call, plan.head, plan.args.query, queries, false);
  const std::uint32_t warp = threadIdx.x / kWarpThreads, tokens = plan.step.tokens;
  char *own = dynamic + room.queries + warp * room.warp;
  const DenseRing ring = dense_ring(room, own, s.c.head_dim * static_cast<std::uint32_t>(sizeof(T)));
  if (warp >= plan.args.dense_warps) return;
  for (std::uint32_t c = blockIdx.x + gridDim.x * warp; c < plan.chunks(0); c += gridDim.x * plan.args.dense_warps) {
    const std::uint32_t first = c * kChunk;
    DenseChunk<Tiles> chunk{plan, queries, reinterpret_cast<float4 *>(own), ring, c, first,
                            tokens - first < kChunk ? tokens - first : kChunk, {}, {}};
    dense_chunk<T>(&chunk);
    wait_copies<0>();
    __syncwarp();
  }
}

template <class T>
__device__ inline void attend(const AttendArgs &args, char *dynamic) {
  const DeviceHead head = head_of(args.call);
  const AttendPlan plan = plan_of(args, head);
  if (!plan.active) return;
  if constexpr (!std::is_same<T, AnyType>::value && sizeof(T) <= 2) {
    const bool dense = plan.everything && args.tail_only == 0 && plan.chunks(0) > kDenseRounds * gridDim.x;
    if (dense && args.dense_tiles == 1) return attend_dense<T, 1>(plan, dynamic);
    if (dense && args.dense_tiles == 2) return attend_dense<T, 2>(plan, dynamic);
  }
  attend_chunks<T>(plan, dynamic);
}

}  // namespace
}  // namespace kvsift

using namespace kvsift;

KVSIFT_KERNELS_OF_TYPES(attend, attend, AttendArgs, kAttendThreads, 1)

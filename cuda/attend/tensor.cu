#include "cuda/attend/tensor.cuh"

#include "cuda/attend/tail.cuh"
#include "cuda/core/last.cuh"
#include "cuda/policy/queries.cuh"

namespace kvsift {
namespace {

// How the blocks of a KV head share its work: the first `pages` of them take chunks of the tail, the last `kept` kept tokens.
struct TensorShares {
  std::uint32_t pages, kept;
  __device__ std::uint32_t slots(const AttendPlan &plan) const { return kept + plan.tail_chunks(); }
};

// A chunk of pages counts for eight tiles of tokens.
__device__ inline TensorShares shares_of(const AttendPlan &plan) {
  const std::uint32_t blocks = gridDim.x, chunks = plan.tail_chunks();
  if (chunks == 0 || blocks == 1) return TensorShares{chunks == 0 ? 0u : 1u, blocks};
  std::uint32_t tiles = 0;
  for (std::uint32_t list = 0; list < plan.lists(); ++list) tiles += blocks_of(plan.kept(list), kRingRows);
  const std::uint64_t work = std::uint64_t{8} * chunks;
  auto pages = static_cast<std::uint32_t>(work * blocks / (work + tiles));
  pages = pages < 1 ? 1 : pages < blocks ? pages : blocks - 1;
  pages = pages < chunks ? pages : chunks;
  return TensorShares{pages, blocks - pages};
}

// The warps of a block as one: values, maxima and sums of each query head.
struct WarpSums {
  float max[kMostWarps][8], sum[kMostWarps][8], factor[kMostWarps][8];
};

template <class T, int Tiles>
__device__ inline void put_sums(const Settings &s, const TensorSums<Tiles> &own, float *values, WarpSums *to) {
  const std::uint32_t warp = threadIdx.x / kWarpThreads, lane = lane_of_warp(), row = lane / 4;
#pragma unroll
  for (int tile = 0; tile < Tiles; ++tile) {
    const std::uint32_t g = 4 * static_cast<std::uint32_t>(tile) + lane % 4;
    float sum = own.sum[tile], *out = values + (warp * 4 * Tiles + g) * s.dim16 + row;
#pragma unroll
    for (unsigned step = 4; step < kWarpThreads; step *= 2) sum = sum + __shfl_xor_sync(kAllLanes, sum, step);
    if (row == 0) to->max[warp][g] = own.max[tile], to->sum[warp][g] = sum;
#pragma unroll
    for (std::uint32_t m = 0; m < kTensorDims; ++m) {
      if (16 * m >= s.dim16) continue;
      const float(&x)[4] = own.out[tile][m];
      out[16 * m] = (x[0] + x[1]) * (1.0f / kWeightUnit<T>);
      out[16 * m + 8] = (x[2] + x[3]) * (1.0f / kWeightUnit<T>);
    }
  }
}

// exp(max - most), where nothing counts for nothing.
__device__ inline float share_of(float max, float most) { return max > -infinity() ? exp1(max - most) : 0.0f; }

template <int Tiles>
__device__ inline void join_warps(const AttendPlan &plan, const float *values, std::uint32_t slot, WarpSums *of) {
  const Settings &s = plan.head.settings();
  const std::uint32_t warps = plan.args.dense_warps, g = threadIdx.x % 8, w = threadIdx.x / 8;
  if (w < warps && g < s.group) {
    float most = -infinity();
    for (std::uint32_t i = 0; i < warps; ++i) most = fmaxf(most, of->max[i][g]);
    of->factor[w][g] = share_of(of->max[w][g], most);
    if (w == 0) plan.sums(plan.place(g, slot))[0] = most;
  }
  __syncthreads();
  if (threadIdx.x < s.group) {
    float sum = 0.0f;
    for (std::uint32_t i = 0; i < warps; ++i) sum = sum + of->factor[i][threadIdx.x] * of->sum[i][threadIdx.x];
    plan.sums(plan.place(threadIdx.x, slot))[1] = sum;
  }
  for (std::uint32_t i = threadIdx.x; i < s.group * s.dim16; i += kAttendThreads) {
    const std::uint32_t head = i / s.dim16, column = i % s.dim16;
    const float *from = values + head * s.dim16 + column;
    float x = 0.0f;
#pragma unroll 4
    for (std::uint32_t n = 0; n < warps; ++n, from += 4 * Tiles * s.dim16) x = x + of->factor[n][head] * *from;
    plan.values(plan.place(head, slot))[column] = x;
  }
}

// What one block reads with. All threads must ask for ready() when their first rows are on their way: it makes the queries.
template <class T, int Tiles>
struct KeptWork {
  const AttendPlan &plan;
  const RowRing &ring;
  std::uint32_t index, blocks, warp, warps;
  float *widened;
  ChunkShared *shared;
  TensorQueries *queries;
  TensorSums<Tiles> sums;
  bool prepared;

  __device__ void ready() {
    if (prepared) return;
    prepared = true;
    widen_queries(plan.args.call, plan.head, plan.args.query, widened, false);
    part_queries<T, Tiles>(plan.head.settings(), widened, queries);
  }
  // Places [begin, end) by this warp.
  __device__ void add(const TensorTokens &tokens, std::uint32_t begin, std::uint32_t end) {
    add_tokens<T, Tiles>(tokens, *queries, ring, begin, warp < warps ? end : begin, &sums, [&] { ready(); });
  }
};

// All tokens, of which every warp has the same share.
template <class Work>
__device__ inline void add_everything(Work *work) {
  const std::uint32_t tokens = work->plan.kept(0);
  const std::uint32_t each = blocks_of(blocks_of(tokens, kRingRows), work->blocks * work->warps) * kRingRows;
  const std::uint64_t begin = std::uint64_t{work->warp * work->blocks + work->index} * each, end = begin + each;
  work->add(TensorTokens{work->plan, nullptr, tokens, kNoQuery}, static_cast<std::uint32_t>(begin < tokens ? begin : tokens),
            static_cast<std::uint32_t>(end < tokens ? end : tokens));
}

// Part `part` of `parts` of a list.
template <class Work>
__device__ inline void add_list(Work *work, std::uint32_t list, std::uint32_t part, std::uint32_t parts) {
  const AttendPlan &plan = work->plan;
  const std::uint32_t kept = plan.kept(list), most = work->warps * kRingRows, own = work->warp * kRingRows;
  const std::uint32_t each = blocks_of(blocks_of(kept, kRingRows), parts) * kRingRows;
  const std::uint64_t begin = std::uint64_t{part} * each, end = begin + each < kept ? begin + each : kept;
  for (std::uint64_t at = begin; at < end; at += most) {
    const auto count = static_cast<std::uint32_t>(end - at < most ? end - at : most);
    find_tokens(plan, list, static_cast<std::uint32_t>(at), count, work->shared);
    work->add(TensorTokens{plan, work->shared->tokens, count, plan.apart ? list : kNoQuery}, own < count ? own : count,
              own + kRingRows < count ? own + kRingRows : count);
    __syncthreads();
  }
}

template <class T, int Tiles>
__device__ inline void attend_kept(const AttendPlan &plan, const TensorShares &shares, char *dynamic) {
  __shared__ TensorQueries queries;
  __shared__ WarpSums joined;
  const Settings &s = plan.head.settings();
  const TensorRoom room = tensor_room(s);
  const std::uint32_t warps = plan.args.dense_warps, warp = threadIdx.x / kWarpThreads;
  const RowRing ring = row_ring(dynamic + room.ring + (warp < warps ? warp : 0) * room.warp, room.pitch, s.c.head_dim * 2);
  KeptWork<T, Tiles> work{plan, ring, blockIdx.x - (gridDim.x - shares.kept), shares.kept, warp, warps,
                          reinterpret_cast<float *>(dynamic), reinterpret_cast<ChunkShared *>(dynamic + room.shared), &queries, {},
                          false};
  if (threadIdx.x == 0) queries.parts = reinterpret_cast<uint2 *>(dynamic + room.parts);
  if (plan.everything) {
    add_everything(&work);
  } else {
    // Blocks share the lists out, then each list.
    const std::uint32_t lists = plan.lists(), parts = shares.kept > lists ? shares.kept / lists : 1;
    for (std::uint32_t item = work.index; item < lists * parts; item += shares.kept) {
      add_list(&work, item % lists, item / lists, parts);
    }
  }
  // One block compares what the tail's logits are of.
  if (plan.tail && plan.args.logits_of_selection != 0 && blockIdx.x + 1 == gridDim.x) {
    work.ready();
    if (are_others(plan, work.widened) && threadIdx.x == 0) report(plan.args.call, kFaultOtherQuery, plan.head.kv_head);
  }
  __syncthreads();
  auto *values = reinterpret_cast<float *>(dynamic + room.ring);
  if (warp < warps) put_sums<T>(s, work.sums, values, &joined);
  __syncthreads();
  join_warps<Tiles>(plan, values, work.index, &joined);
}

__device__ inline void attend_tail(const AttendPlan &plan, const TensorShares &shares, char *dynamic) {
  const ChunkRows rows = chunk_rows(dynamic, plan.head.settings(), 2, false);
  for (std::uint32_t chunk = blockIdx.x; chunk < plan.tail_chunks(); chunk += shares.pages) {
    tail_chunk<1>(plan, rows, chunk, [&](std::uint32_t) { return shares.kept; });
  }
}

// Makes shares of all of the slots' maxima, and returns one over their sum: not finite where nothing has a weight. A warp works on
// a query head.
__device__ inline float find_shares(const AttendPlan &plan, std::uint32_t g, std::uint32_t slots) {
  const std::uint32_t lane = lane_of_warp();
  float most = -infinity(), sum = 0.0f;
  for (std::uint32_t i = lane; i < slots; i += kWarpThreads) {
    const float *own = plan.sums(plan.place(g, i));
    most = fmaxf(most, own[1] == 0.0f ? -infinity() : own[0]);
  }
#pragma unroll
  for (unsigned step = 16; step > 0; step /= 2) most = fmaxf(most, __shfl_xor_sync(kAllLanes, most, step));
  for (std::uint32_t i = lane; i < slots; i += kWarpThreads) {
    float *own = plan.sums(plan.place(g, i));
    own[0] = own[1] == 0.0f ? 0.0f : share_of(own[0], most);
    sum = sum + own[0] * own[1];
  }
#pragma unroll
  for (unsigned step = 16; step > 0; step /= 2) sum = sum + __shfl_xor_sync(kAllLanes, sum, step);
  return 1.0f / sum;
}

// The blocks as one, by the last of them.
__device__ inline void join_blocks(const AttendPlan &plan, std::uint32_t slots) {
  __shared__ float inverse[8];
  const Settings &s = plan.head.settings();
  const std::uint32_t warp = threadIdx.x / kWarpThreads;
  if (warp < s.group) {
    const float own = find_shares(plan, warp, slots);
    if (lane_of_warp() == 0) inverse[warp] = own;
  }
  __syncthreads();
  for (std::uint32_t i = threadIdx.x; i < s.group * s.dim16; i += kAttendThreads) {
    const std::uint32_t g = i / s.dim16, column = i % s.dim16;
    const float *values = plan.values(plan.place(g, 0)) + column, *shares = plan.sums(plan.place(g, 0));
    float x = 0.0f;
#pragma unroll 16
    for (std::uint32_t n = 0; n < slots; ++n) x = x + shares[2 * n] * values[n * s.dim16];
    const float out = x * inverse[g];
    plan.args.out[plan.query_head(g) * s.c.head_dim + column] = out;
    if (out - out != 0.0f) report(plan.args.call, kFaultAttention, plan.head.kv_head);
  }
}

template <class T, int Tiles>
__device__ inline void attend_tensor(const AttendArgs &args, char *dynamic) {
  const DeviceHead head = head_of(args.call);
  const AttendPlan plan = plan_of(args, head);
  const TensorShares shares = shares_of(plan);
  if (blockIdx.x < shares.pages) {
    attend_tail(plan, shares, dynamic);
    __syncthreads();
  }
  if (blockIdx.x >= gridDim.x - shares.kept) attend_kept<T, Tiles>(plan, shares, dynamic);
  auto *arrivals = in_image<std::uint32_t>(head.image, head.image.room.tickets) + head.kv_head;
  if (is_last_block(arrivals, gridDim.x)) join_blocks(plan, shares.slots(plan));
}

template <class T>
__device__ inline void attend_narrow(const AttendArgs &args, char *dynamic) {
  attend_tensor<T, 1>(args, dynamic);
}
template <class T>
__device__ inline void attend_wide(const AttendArgs &args, char *dynamic) {
  attend_tensor<T, 2>(args, dynamic);
}

}  // namespace
}  // namespace kvsift

using namespace kvsift;

// For float16 and bfloat16 rows of 16 .. 128 dimensions, a multiple of 16. At most four query heads a KV head, or eight.
KVSIFT_KERNEL_OF_TYPE(attend_tensor_f16, attend_narrow, kvsift::F16, AttendArgs, kAttendThreads, 1)
KVSIFT_KERNEL_OF_TYPE(attend_tensor_bf16, attend_narrow, kvsift::BF16, AttendArgs, kAttendThreads, 1)
KVSIFT_KERNEL_OF_TYPE(attend_tensor_wide_f16, attend_wide, kvsift::F16, AttendArgs, kAttendThreads, 1)
KVSIFT_KERNEL_OF_TYPE(attend_tensor_wide_bf16, attend_wide, kvsift::BF16, AttendArgs, kAttendThreads, 1)

// Kernel matrices: K(i, j) = exp(key_scale * <k_i - m, k_j - m>) * (<v_i, v_j> + value_offset), coordinates added by fma in
// order.
#include "cuda/balance/compress.h"

#include "cuda/balance/rows.cuh"

using namespace kvsift;

namespace {

constexpr std::uint32_t kDepth = 16;  // coordinates in shared memory at a time
constexpr std::uint32_t kSide = 16;   // threads to a side of the tile
constexpr std::uint32_t kEntries = kGramTile / kSide;

struct Operands {
  alignas(16) float row[kDepth][kGramTile], column[kDepth][kGramTile];
};

struct Operand {
  const kvsift_view &view;
  const float *centre;  // null: as they are
  bool weighted;
};

// What a thread brings into shared memory: half of the coordinates of one token, of the rows or of the columns.
struct Share {
  DeviceRow row;
  float factor;
  bool there;
  std::uint32_t token, half, head;
  float (*out)[kGramTile];
};

__device__ Share share_of(const BalanceArgs &args, const BalanceGroup &group, const Operand &of, std::uint32_t j,
                          std::uint32_t i, Operands *operands) {
  const bool of_rows = threadIdx.x < kGramThreads / 2;
  Share s{DeviceRow{nullptr, 1.0f}, 1.0f, false, threadIdx.x / 2 % kGramTile, threadIdx.x % 2, group.head,
          of_rows ? operands->row : operands->column};
  const std::uint32_t member = (of_rows ? j : i) + s.token;
  s.there = member < group.count;
  if (!s.there) return s;
  s.row = row_of_member(args, of.view, group, member);
  s.factor = s.row.scale * (of.weighted ? group.weight[member] : 1.0f);
  return s;
}

// Coordinates [c, c + kDepth) of the tile's tokens, a line for each; zeros where there is nothing.
template <class T>
__device__ void load_lines(const BalanceArgs &args, const Operand &of, const Share &s, std::uint32_t c) {
  const T *row = reinterpret_cast<const T *>(s.row.data);
#pragma unroll
  for (std::uint32_t k = 0; k < kDepth / 2; ++k) {
    const std::uint32_t line = s.half * (kDepth / 2) + k;
    float x = 0.0f;
    if (s.there && c + line < args.dim) {
      const float raw = widen(row[c + line]) * s.factor;
      if (raw - raw != 0.0f) report(args, of.weighted ? kFaultValues : kFaultKeys, args.first_head + s.head);
      x = cut_off(raw);
      if (of.centre != nullptr) x = x - of.centre[c + line];
    }
    s.out[line][s.token] = x;
  }
}

template <class T>
__device__ void multiply(const BalanceArgs &args, const Operand &of, const Share &share, const Operands &operands,
                         float (&sum)[kEntries][kEntries]) {
  const std::uint32_t x = threadIdx.x % kSide, y = threadIdx.x / kSide;
#pragma unroll
  for (std::uint32_t r = 0; r < kEntries; ++r) {
#pragma unroll
    for (std::uint32_t k = 0; k < kEntries; ++k) sum[r][k] = 0.0f;
  }
  for (std::uint32_t c = 0; c < args.dim; c += kDepth) {
    __syncthreads();
    load_lines<T>(args, of, share, c);
    __syncthreads();
#pragma unroll
    for (std::uint32_t d = 0; d < kDepth; ++d) {
      const float4 a = *reinterpret_cast<const float4 *>(&operands.row[d][kEntries * y]);
      const float4 b = *reinterpret_cast<const float4 *>(&operands.column[d][kEntries * x]);
      const float rows[4] = {a.x, a.y, a.z, a.w}, columns[4] = {b.x, b.y, b.z, b.w};
#pragma unroll
      for (std::uint32_t r = 0; r < kEntries; ++r) {
#pragma unroll
        for (std::uint32_t k = 0; k < kEntries; ++k) sum[r][k] = __fmaf_rn(rows[r], columns[k], sum[r][k]);
      }
    }
  }
}

__device__ void multiply(const BalanceArgs &args, const BalanceGroup &group, const Operand &of, std::uint32_t j,
                         std::uint32_t i, Operands *operands, float (&sum)[kEntries][kEntries]) {
  const Share share = share_of(args, group, of, j, i, operands);
  switch (of.view.type) {
    case KVSIFT_F16: return multiply<F16>(args, of, share, *operands, sum);
    case KVSIFT_BF16: return multiply<BF16>(args, of, share, *operands, sum);
    case KVSIFT_I8: return multiply<std::int8_t>(args, of, share, *operands, sum);
    default: return multiply<float>(args, of, share, *operands, sum);
  }
}

}  // namespace

// A block for each group of the pass, a thread for each dimension in turn: the mean key, rows added in order.
KVSIFT_KERNEL(balance_centre, BalanceArgs, 256) {
  const BalanceGroup group = group_of_pass(args, blockIdx.x);
  const float share = 1.0f / static_cast<float>(args.group);
  for (std::uint32_t c = threadIdx.x; c < args.dim; c += blockDim.x) {
    float sum = 0.0f;
#pragma unroll 8
    for (std::uint32_t i = 0; i < group.count; ++i) {
      const DeviceRow row = row_of_member(args, args.keys, group, i);
      sum += cut_off(element_at(row.data, args.keys.type, c) * row.scale);
    }
    args.centre[std::uint64_t{blockIdx.x} * args.dim + c] = sum * share;
  }
}

// Blocks: [tiles on and above the diagonal][groups of the pass].
KVSIFT_KERNEL(balance_gram, BalanceArgs, kGramThreads) {
  __shared__ Operands operands;
  const BalanceGroup group = group_of_pass(args, blockIdx.y);
  // Tile (j, i), i >= j, by columns of tiles.
  std::uint32_t column = 0;
  while ((column + 1) * (column + 2) / 2 <= blockIdx.x) ++column;
  const std::uint32_t i = column * kGramTile, j = (blockIdx.x - column * (column + 1) / 2) * kGramTile;
  if (i >= group.count) return;
  float keys[kEntries][kEntries], values[kEntries][kEntries];
  const Operand key{args.keys, args.centre + std::uint64_t{blockIdx.y} * args.dim, false}, value{args.values, nullptr, true};
  multiply(args, group, key, j, i, &operands, keys);
  multiply(args, group, value, j, i, &operands, values);
  const std::uint32_t x = threadIdx.x % kSide, y = threadIdx.x / kSide;
  float *out = args.matrix + (std::uint64_t{blockIdx.y} * args.order + j + kEntries * y) * args.order + i + kEntries * x;
#pragma unroll
  for (std::uint32_t r = 0; r < kEntries; ++r, out += args.order) {
    float k[kEntries];
#pragma unroll
    for (std::uint32_t n = 0; n < kEntries; ++n) {
      const float exponent = __fmaf_rn(args.key_scale, keys[r][n], -0.0f);
      const float most = exponent < kMostExponent ? exponent : kMostExponent;
      k[n] = exp1(most) * __fmaf_rn(1.0f, values[r][n], args.value_offset);
    }
    *reinterpret_cast<float4 *>(out) = make_float4(k[0], k[1], k[2], k[3]);
  }
}

// Kernel matrices of the groups of a pass.
#include "cuda/balance/gram.cuh"

#include "cuda/balance/rows.cuh"

using namespace kvsift;

namespace {

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

__device__ Share share_of(const BalanceArgs &args, const BalanceGroup &group, const Operand &of, const TilePlace &tile,
                          Operands *operands) {
  const bool of_rows = threadIdx.x < kGramThreads / 2;
  Share s{DeviceRow{nullptr, 1.0f}, 1.0f, false, threadIdx.x / 2 % kGramTile, threadIdx.x % 2, group.head,
          of_rows ? operands->row : operands->column};
  const std::uint32_t member = (of_rows ? tile.j : tile.i) + s.token;
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
__device__ void multiply_rows(const BalanceArgs &args, const Operand &of, const Share &share, const Operands &operands,
                              float (&sum)[kEntries][kEntries]) {
  multiply(args.dim, operands, [&](std::uint32_t c) { load_lines<T>(args, of, share, c); }, sum);
}

__device__ void multiply_rows(const BalanceArgs &args, const BalanceGroup &group, const Operand &of, const TilePlace &tile,
                              Operands *operands, float (&sum)[kEntries][kEntries]) {
  const Share share = share_of(args, group, of, tile, operands);
  switch (of.view.type) {
    case KVSIFT_F16: return multiply_rows<F16>(args, of, share, *operands, sum);
    case KVSIFT_BF16: return multiply_rows<BF16>(args, of, share, *operands, sum);
    case KVSIFT_I8: return multiply_rows<std::int8_t>(args, of, share, *operands, sum);
    default: return multiply_rows<float>(args, of, share, *operands, sum);
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
  const TilePlace tile = tile_place(blockIdx.x);
  if (tile.i >= group.count) return;
  float keys[kEntries][kEntries], values[kEntries][kEntries];
  const Operand key{args.keys, args.centre + std::uint64_t{blockIdx.y} * args.dim, false}, value{args.values, nullptr, true};
  multiply_rows(args, group, key, tile, &operands, keys);
  multiply_rows(args, group, value, tile, &operands, values);
  put_entries(tile, keys, values, args.key_scale, args.value_offset,
              args.matrix + std::uint64_t{blockIdx.y} * args.order * args.order, args.order);
}

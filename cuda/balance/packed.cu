// Around the products of cuBLASLt (products.h): the groups' rows packed for them before, the kernel matrix made of them after.
#include "cuda/balance/compress.h"

#include "cuda/balance/gram.cuh"
#include "cuda/balance/rows.cuh"

using namespace kvsift;

namespace {

// What an operand holds of a member: times its factor, cut off, less the centre; zeros past the coordinates.
__device__ void pack_row(const BalanceArgs &args, const BalanceGroup &group, std::uint32_t member, bool values, float *out) {
  const kvsift_view &view = values ? args.values : args.keys;
  const DeviceRow row = row_of_member(args, view, group, member);
  const float factor = row.scale * (values ? group.weight[member] : 1.0f);
  const float *centre = args.centre + std::uint64_t{blockIdx.y} * args.dim;
  for (std::uint32_t c = threadIdx.x % kWarpThreads; c < args.depth; c += kWarpThreads) {
    float x = 0.0f;
    if (c < args.dim) {
      const float raw = element_at(row.data, view.type, c) * factor;
      if (raw - raw != 0.0f) report(args, values ? kFaultValues : kFaultKeys, args.first_head + group.head);
      x = values ? cut_off(raw) : cut_off(raw) - centre[c];
    }
    out[c] = x;
  }
}

__device__ float kernel_of(const BalanceArgs &args, float keys, float values) {
  const float exponent = args.key_scale * keys;
  return exp1(exponent < kMostExponent ? exponent : kMostExponent) * (values + args.value_offset);
}

}  // namespace

// Blocks: [tiles of an operand][groups of the pass]; a warp a row. Keys of all groups come first, then their values. Rows past
// the last member keep what was there: it comes to entries that nothing reads.
KVSIFT_KERNEL(balance_pack, BalanceArgs, kGramThreads) {
  const BalanceGroup group = group_of_pass(args, blockIdx.y);
  const std::uint64_t operand = std::uint64_t{args.order} * args.depth;
  for (std::uint32_t r = threadIdx.x / kWarpThreads; r < kGramTile; r += kGramThreads / kWarpThreads) {
    const std::uint32_t member = blockIdx.x * kGramTile + r;
    float *keys = args.packed + blockIdx.y * operand + std::uint64_t{member} * args.depth;
    float *values = keys + args.pass_groups * operand;
    if (member >= group.count) return;
    pack_row(args, group, member, false, keys);
    pack_row(args, group, member, true, values);
  }
}

// Blocks: [tiles on and above the diagonal][groups of the pass]. In place of the products of keys.
KVSIFT_KERNEL(balance_exponential, BalanceArgs, kGramThreads) {
  constexpr std::uint32_t kQuads = kGramTile / 4;
  const std::uint64_t matrix = std::uint64_t{args.order} * args.order;
  std::uint32_t column = 0;
  while ((column + 1) * (column + 2) / 2 <= blockIdx.x) ++column;
  const std::uint32_t i = column * kGramTile, j = (blockIdx.x - column * (column + 1) / 2) * kGramTile;
  for (std::uint32_t q = threadIdx.x; q < kGramTile * kQuads; q += kGramThreads) {
    const std::uint64_t at = std::uint64_t{j + q / kQuads} * args.order + i + 4 * (q % kQuads);
    float4 *keys = reinterpret_cast<float4 *>(args.matrix + blockIdx.y * matrix + at);
    const float4 k = *keys, v = *reinterpret_cast<const float4 *>(args.matrix + (args.pass_groups + blockIdx.y) * matrix + at);
    *keys = make_float4(kernel_of(args, k.x, v.x), kernel_of(args, k.y, v.y), kernel_of(args, k.z, v.z), kernel_of(args, k.w, v.w));
  }
}

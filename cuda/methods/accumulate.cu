#include "cuda/methods/accumulate.h"

#include "cuda/policy/image.cuh"

using namespace kvsift;

namespace {

__device__ void accumulate_block(const AccumulateArgs &args, const DeviceHead &head, std::uint32_t tokens, bool fresh,
                                 std::uint32_t j) {
  const Settings &s = args.call.image.s;
  const DeviceRows &rows = args.rows;
  const float *from = (args.of_mass != 0 ? rows.mass : rows.peak) + blockIdx.y * rows.head_stride + j;
  float *state = head.state<float>(args.field) + j;
  for (std::uint32_t list = 0; list < s.lists; ++list, from += rows.list_stride, state += s.max_blocks) {
    float sum = fresh ? 0.0f : *state;
    for (std::uint32_t r = 0; r < rows.rows; ++r) {
      if (j >= blocks_of(tokens - (rows.rows - 1 - r), s.c.block_tokens)) continue;
      sum = __fmaf_rn(args.keep, sum, args.add * from[r * rows.row_stride]);
    }
    *state = sum;
  }
}

}  // namespace

// Blocks: [any number][KV heads].
KVSIFT_KERNEL(accumulate, AccumulateArgs, 256) {
  const DeviceHead head = head_of(args.call);
  const Settings &s = args.call.image.s;
  const std::uint32_t tokens = tokens_of(args.call);
  if (args.rows.prompt == 0 && (args.votes != 0 || tokens < s.learns_from)) return;
  const bool unseen = head.unit()->rows_seen <= progress_of(args.call.image)->tokens;
  const bool fresh = args.votes != 0 && (args.rows.first == kFirstUnlessSeen ? unseen : args.rows.first != 0);
  const std::uint32_t blocks = fresh ? s.max_blocks : blocks_of(tokens, s.c.block_tokens);
  for (std::uint32_t j = blockIdx.x * blockDim.x + threadIdx.x; j < blocks; j += gridDim.x * blockDim.x) {
    accumulate_block(args, head, tokens, fresh, j);
  }
}

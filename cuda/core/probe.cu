#include "cuda/core/probe.h"

#include "cuda/core/device.cuh"

using namespace kvsift;

KVSIFT_KERNEL(probe_dot, ProbeDotArgs, 256) {
  const std::uint32_t row = (blockIdx.x * blockDim.x + threadIdx.x) / 2, half = threadIdx.x % 2;
  const F16 *keys = static_cast<const F16 *>(args.rows) + std::uint64_t{row} * args.dim;
  float sum[8] = {};
  for (std::uint32_t c = half * 8; row < args.count && c < args.dim; c += 16) {
    float key[8];
    load8(keys + c, key);
#pragma unroll
    for (int i = 0; i < 8; ++i) sum[i] = __fmaf_rn(args.query[c + i], key[i], sum[i]);
  }
  const float dot = tree16_of_pair(sum, kAllLanes);
  if (row < args.count && half == 0) args.out[row] = dot;
}

KVSIFT_KERNEL(probe_exp, ProbeExpArgs, 256) {
  const std::uint32_t i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= args.count) return;
  args.exps[i] = exp1(args.x[i]);
  args.logs[i] = log1(args.x[i]);
}

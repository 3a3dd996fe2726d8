// The queries of a KV head's group, widened.
#pragma once

#include "cuda/policy/rows.cuh"
#include "cuda/policy/image.cuh"

namespace kvsift {
namespace {

// [group][dim16] float32 in shared memory, zeros behind the dimension. `keep`: also where the CPU leaves them, and faults
// are told. All threads of the block must call it.
__device__ inline void widen_queries(const Call &call, const DeviceHead &head, const kvsift_view &view, float *out, bool keep) {
  const Settings &s = call.image.s;
  float *left = head.scratch().queries;
  for (std::uint32_t i = threadIdx.x; i < s.group * s.dim16; i += blockDim.x) {
    const std::uint32_t g = i / s.dim16, c = i % s.dim16;
    const DeviceRow row = row_of(view, 0, 0, head.kv_head * s.group + g);
    const float x = c < s.c.head_dim ? element_at(row.data, view.type, c) * row.scale : 0.0f;
    out[i] = x;
    if (!keep) continue;
    left[i] = x;
    if (x - x != 0.0f) report(call, kFaultQuery, head.kv_head);
  }
  __syncthreads();
}

}  // namespace
}  // namespace kvsift

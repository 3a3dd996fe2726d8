// Halvings ahead of a call's pushes. Halving `number` of a level halves what halvings 2 number and 2 number + 1 of the level
// below have kept, level 0 group `number` of the tokens: where all of these tokens are the call's, it can be done before its
// turn, one level after the other, all of a level side by side. The pushes then only move what was found.
#pragma once

#include "cuda/balance/coreset_rows.cuh"
#include "cuda/balance/halve.cuh"
#include "cuda/policy/coreset.h"
#include "cuda/policy/image.cuh"

namespace kvsift {
namespace {

// Of one head.
struct HalvingsAhead {
  const CoresetShape &shape;
  bool any;
  AheadSpan span;
  std::uint32_t max_tokens;
  std::uint32_t *tokens;  // what halvings have kept, level by level, ascending in each
  float *weights;

  __device__ bool has(std::uint32_t level, std::uint32_t number) const {
    return any && number >= span.begin(shape, level) && number < span.end(shape, level);
  }
  __device__ std::uint64_t place(std::uint32_t level, std::uint32_t number) const {
    return ahead_places(shape, max_tokens, level) + std::uint64_t{number - span.begin(shape, level)} * (shape.group / 2);
  }
};

__device__ inline HalvingsAhead ahead_of(const DeviceHead &head, const KeysArgs &args, bool any) {
  const Image &image = head.image;
  const Settings &s = image.s;
  const std::uint64_t at = head.kv_head * ahead_places(s.coreset, s.c.max_tokens, s.coreset.levels);
  return HalvingsAhead{s.coreset, any, AheadSpan{args.first_token, args.first_token + args.tokens}, s.c.max_tokens,
               in_image<std::uint32_t>(image, image.room.ahead) + at, in_image<float>(image, image.room.ahead_weights) + at};
}

template <class Rows>
__device__ inline HalveJob<Rows> halve_job(const DeviceHead &head, const Rows &rows, std::uint64_t matrix) {
  const Settings &s = head.settings();
  const std::uint32_t side = (s.coreset.group + kGramTile - 1) / kGramTile * kGramTile;
  return HalveJob<Rows>{rows,
                        s.c.head_dim,
                        s.coreset.group,
                        s.c.balance_form == KVSIFT_BALANCE_UNIFORM,
                        s.c.balance_temperature * s.scale,
                        s.c.balance_value_offset,
                        s.c.balance_gamma,
                        s.c.seed,
                        head.layer,
                        head.kv_head,
                        in_image<float>(head.image, head.image.room.matrix) + matrix * side * side,
                        side};
}

// By one block: halving `number` of `level`.
__device__ inline void halve_ahead(const HalvingsAhead &ahead, const HalveJob<GivenRows> &job, std::uint32_t level,
                                   std::uint32_t number, HalveShared *shared) {
  const std::uint32_t half = job.group / 2, count = level == 0 ? job.group : 2 * half;
  const std::uint64_t from = level == 0 ? 0 : ahead.place(level - 1, 2 * number), to = ahead.place(level, number);
  for (std::uint32_t i = threadIdx.x; i < count; i += blockDim.x) {
    shared->order[i] = level == 0 ? ahead.shape.sinks + number * job.group + i : ahead.tokens[from + i];
    shared->weight[i] = level == 0 ? 1.0f : ahead.weights[from + i];
  }
  __syncthreads();
  const std::uint32_t kept = halve_list(job, count, level, shared);
  for (std::uint32_t i = threadIdx.x; i < kept; i += blockDim.x) {
    ahead.tokens[to + i] = shared->order[i];
    ahead.weights[to + i] = shared->weight[i];
  }
  __syncthreads();
}

}  // namespace
}  // namespace kvsift

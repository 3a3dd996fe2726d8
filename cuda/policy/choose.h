// From scores to lists.
#pragma once

#include "cuda/core/launcher.h"
#include "cuda/policy/image.h"
#include "methods/method.h"

namespace kvsift {

constexpr std::uint32_t kChooseThreads = 1024;  // at most
constexpr std::uint32_t kNearBlocks = 1024;  // of a choice, in shared memory

// One block a list: blockIdx.x counts the lists of a KV head.
struct ChooseArgs {
  Call call;
  ScoreKind kind;
  std::uint32_t scored;        // 0: the method has no scores, sinks and newest tokens are all
  const std::uint32_t *leading;  // [KV heads of the call]: leading blocks that have a score; null: all have
  std::uint32_t by_query;      // scores have a row for each query head, in scratch; else one for each list
  std::uint32_t state_rows;    // scores are read in the method's state: field + 1; 0: in scratch
  std::uint32_t evicts;        // blocks that are not chosen get minus infinity there
  std::uint32_t learns;
  std::uint32_t leaves_tail;   // the scoring left the tail's logits in scratch
  std::uint32_t verifies;      // page statistics were left in the spare rows, for a late check
  std::uint32_t bytes_of_block;  // of state read for a block's scores
  std::uint32_t shared_floats, shared_stride;  // dynamic shared memory, and a row of scores in it
};

// Lets the kernel have the shared memory that this configuration can use.
kvsift_status allow_choose_shared(const CudaDevice &device, const Settings &settings, kvsift_error *error);

kvsift_status launch_choose(const Launcher &to, const ChooseArgs &args, std::uint32_t heads);

}  // namespace kvsift

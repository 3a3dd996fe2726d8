// Tokens in and out of the heads' coresets.
#include "cuda/policy/coreset.h"

#include "cuda/balance/coreset_back.cuh"
#include "cuda/policy/steps.h"

using namespace kvsift;

// A block for each head; keys_seen counts the tokens already.
KVSIFT_KERNEL(coreset_push, KeysArgs, kGramThreads) {
  __shared__ CoresetShared shared;
  const DeviceHead head = head_of(args.call);
  CoresetWork work(args.call, head, &shared);
  if (work.closed()) return;
  const std::uint32_t sinks = args.call.image.s.c.sink_tokens, end = head.unit()->keys_seen, first = end - args.tokens;
  // Where they do not follow on, the keys were refused and a fault told.
  if (work.end() != (first > sinks ? first : sinks)) return;
  std::uint32_t i = first < sinks ? sinks - first : 0;
  while (i < args.tokens) i += work.push(args.keys, args.values, i, first + i, args.tokens - i);
  work.leave();
}

// As Coreset::truncate. A block for each sparse layer (x) and KV head (y).
KVSIFT_KERNEL(coreset_truncate, TruncateArgs, kGramThreads) {
  __shared__ CoresetShared shared;
  const DeviceHead head{args.call.image, args.call.image.s.c.dense_layers + blockIdx.x, blockIdx.y};
  CoresetWork work(args.call, head, &shared);
  if (!work.can_truncate(args.to)) {
    if (threadIdx.x == 0) report(args.call, kFaultRollback, head.kv_head);
    return;
  }
  __syncthreads();
  work.truncate(args.to);
  work.leave();
}

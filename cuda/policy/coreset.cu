// Tokens in and out of the heads' coresets.
#include "cuda/policy/coreset.h"

#include "cuda/balance/coreset_back.cuh"
#include "cuda/policy/steps.h"

using namespace kvsift;

// A block for each head; keys_seen counts the tokens already. Alone on its multiprocessor, so that the large walk has registers
// for all of its sums.
KVSIFT_KERNEL_RESIDENT(coreset_push, CoresetArgs, kGramThreads, 1) {
  __shared__ CoresetShared shared;
  const KeysArgs &keys = args.keys;
  const DeviceHead head = head_of(keys.call);
  CoresetWork work(keys.call, head, &shared);
  if (work.closed()) return;
  const std::uint32_t sinks = keys.call.image.s.c.sink_tokens, end = head.unit()->keys_seen, first = end - keys.tokens;
  // Where they do not follow on, the keys were refused and a fault told.
  if (work.end() != (first > sinks ? first : sinks)) return;
  const HalvingsAhead ahead = ahead_of(head, keys, args.ahead != 0);
  std::uint32_t i = first < sinks ? sinks - first : 0;
  while (i < keys.tokens) i += work.push(keys, i, first + i, ahead);
  work.leave();
}

// Of one level. Blocks: [coreset_matrices][heads].
KVSIFT_KERNEL_RESIDENT(coreset_ahead, CoresetArgs, kGramThreads, 1) {
  __shared__ HalveShared shared;
  const KeysArgs &keys = args.keys;
  const DeviceHead head = head_of(keys.call);
  if (coreset_of(head).state->closed != 0 || head.unit()->keys_seen != keys.first_token + keys.tokens) return;
  const HalvingsAhead ahead = ahead_of(head, keys, true);
  const auto job = halve_job(head, GivenRows{keys, head.kv_head}, std::uint64_t{head.kv_head} * gridDim.x + blockIdx.x);
  const std::uint32_t end = ahead.span.end(ahead.shape, args.level);
  for (std::uint32_t i = ahead.span.begin(ahead.shape, args.level) + blockIdx.x; i < end; i += gridDim.x) {
    halve_ahead(ahead, job, args.level, i, &shared);
  }
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

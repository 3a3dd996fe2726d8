#include "cuda/policy/steps.h"

#include "cuda/policy/undo.cuh"

using namespace kvsift;

KVSIFT_KERNEL(advance_tokens, AdvanceArgs, 32) {
  if (threadIdx.x != 0) return;
  Progress *p = progress_of(args.image);
  if (args.tokens > args.image.s.c.max_tokens - p->tokens) {
    report(Call{args.image, 0, 0, p->tokens + args.tokens}, kFaultCapacity, 0);
    return;
  }
  if (p->selected_for > p->tokens) {
    if (p->decode_steps == 0) p->first_prompt = p->tokens;
    p->decode_steps += args.tokens;
  } else {
    p->prompt_end = p->tokens + args.tokens;
  }
  p->tokens += args.tokens;
}

// The policy's counters after kvsift_truncate.
KVSIFT_KERNEL(truncate_counters, TruncateArgs, 32) {
  if (threadIdx.x != 0) return;
  Progress *p = progress_of(args.call.image);
  *p = truncated(*p, args.to);
}

// A block for each KV head.
KVSIFT_KERNEL(remember_step, RememberArgs, 1024) { remember(head_of(args.call), tokens_of(args.call) - 1); }

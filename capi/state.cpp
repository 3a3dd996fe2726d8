// What engines do to a cache: cut it back, copy it, keep it for later.
#include <cstring>

#include "check.h"
#include "methods/method.h"
#include "policy/coreset.h"
#include "policy/pages.h"
#include "policy/snapshot.h"
#include "policy/undo.h"

using namespace kvsift;

namespace {

bool can_go_back(const HeadState &head, const Method &method, std::uint32_t tokens) {
  if (method.can_truncate != nullptr && !method.can_truncate(head, tokens)) return false;
  return can_truncate_coreset(head, tokens) && can_restore(head, tokens);
}

void go_back(const HeadState &head, const Method &method, std::uint32_t tokens) {
  const bool moved = head.unit->keys_seen > tokens;
  if (method.truncate != nullptr) method.truncate(head, tokens);
  truncate_coreset(head, tokens);
  restore(head, tokens);
  if (moved) rewrite_open_page(head);
  head.marks() = HeadMarks{};
}

template <class Do>
bool all_heads(Policy *p, Do each) {
  for (std::uint32_t layer = p->s.c.dense_layers; layer < p->s.c.layers; ++layer) {
    for (std::uint32_t head = 0; head < p->s.c.kv_heads; ++head) {
      if (!each(head_of(p, layer, head))) return false;
    }
  }
  return true;
}

}  // namespace

extern "C" kvsift_status kvsift_truncate(kvsift_policy *policy, uint32_t tokens) {
  if (!is_policy(policy)) return KVSIFT_INVALID_ARGUMENT;
  Policy *p = policy_of(policy);
  const Method &method = *method_of(p->s.c.method);
  if (tokens > p->tokens) {
    return fail_in(p, KVSIFT_INVALID_ARGUMENT, "tokens is ", tokens, ", the policy is only ", p->tokens, " tokens on");
  }
  const bool decided_by_prompt = method.prefill_rows != nullptr || method.keep != nullptr || is_graded(p->s);
  if (decided_by_prompt && tokens < p->prompt_end) {
    return fail_in(p, KVSIFT_ROLLBACK, "tokens is ", tokens, ", method ", method.name,
                   " cannot go back into the prompt of ", p->prompt_end, " tokens");
  }
  if (!all_heads(p, [&](const HeadState &head) { return can_go_back(head, method, tokens); })) {
    return fail_in(p, KVSIFT_ROLLBACK, "tokens is ", tokens, ", ", p->tokens - tokens, " back from ", p->tokens,
                   "; config.rollback_tokens is ", p->s.c.rollback_tokens);
  }
  all_heads(p, [&](const HeadState &head) {
    go_back(head, method, tokens);
    return true;
  });
  // Tokens of a prompt are no decode steps.
  const std::uint32_t decoded = p->tokens - (tokens > p->prompt_end ? tokens : p->prompt_end);
  const std::uint32_t most = tokens > p->first_prompt ? tokens - p->first_prompt : 0;
  p->decode_steps = p->decode_steps > decoded ? p->decode_steps - decoded : 0;
  if (p->decode_steps > most) p->decode_steps = most;
  p->tokens = tokens;
  if (p->prompt_end > tokens) p->prompt_end = tokens;
  if (p->first_prompt > tokens) p->first_prompt = tokens;
  p->selected_for.store(0, std::memory_order_relaxed);
  return KVSIFT_OK;
}

extern "C" kvsift_status kvsift_fork(const kvsift_policy *policy, void *arena, uint64_t bytes, kvsift_policy **copy) {
  if (copy != nullptr) *copy = nullptr;
  if (!is_policy(policy)) return KVSIFT_INVALID_ARGUMENT;
  const Policy *p = policy_of(policy);
  if (copy == nullptr) return fail_in(p, KVSIFT_INVALID_ARGUMENT, "copy is null");
  if (arena == nullptr) return fail_in(p, KVSIFT_INVALID_ARGUMENT, "arena is null");
  if (reinterpret_cast<std::uintptr_t>(arena) % kAlign != 0) {
    return fail_in(p, KVSIFT_MISALIGNED, "arena is no multiple of ", kAlign);
  }
  if (bytes < p->bytes) {
    return fail_in(p, KVSIFT_ARENA_TOO_SMALL, "arena of ", bytes, " bytes, the policy has ", p->bytes);
  }
  if (overlap(arena, p->bytes, p, p->bytes)) {
    return fail_in(p, KVSIFT_INVALID_ARGUMENT, "arena overlaps the policy's own");
  }
  std::memcpy(arena, static_cast<const void *>(p), p->bytes);
  static_cast<Policy *>(arena)->error = kvsift_error{};
  static_cast<Policy *>(arena)->error_busy.store(0, std::memory_order_relaxed);
  *copy = static_cast<kvsift_policy *>(arena);
  return KVSIFT_OK;
}

extern "C" kvsift_status kvsift_snapshot_size(const kvsift_policy *policy, uint64_t *bytes) {
  if (!is_policy(policy)) return KVSIFT_INVALID_ARGUMENT;
  const Policy *p = policy_of(policy);
  if (bytes == nullptr) return fail_in(p, KVSIFT_INVALID_ARGUMENT, "bytes is null");
  *bytes = snapshot_bytes(*p);
  return KVSIFT_OK;
}

extern "C" kvsift_status kvsift_snapshot_save(const kvsift_policy *policy, void *buffer, uint64_t bytes,
                                              uint64_t *written) {
  if (!is_policy(policy)) return KVSIFT_INVALID_ARGUMENT;
  const Policy *p = policy_of(policy);
  if (buffer == nullptr) return fail_in(p, KVSIFT_INVALID_ARGUMENT, "buffer is null");
  const std::uint64_t wanted = snapshot_bytes(*p);
  if (bytes < wanted) {
    return fail_in(p, KVSIFT_ARENA_TOO_SMALL, "buffer of ", bytes, " bytes, the snapshot has ", wanted);
  }
  if (overlap(buffer, wanted, p, p->bytes)) {
    return fail_in(p, KVSIFT_INVALID_ARGUMENT, "buffer overlaps the policy's arena");
  }
  save(*p, buffer);
  if (written != nullptr) *written = wanted;
  return KVSIFT_OK;
}

extern "C" kvsift_status kvsift_snapshot_load(kvsift_policy *policy, const void *buffer, uint64_t bytes) {
  if (!is_policy(policy)) return KVSIFT_INVALID_ARGUMENT;
  Policy *p = policy_of(policy);
  if (buffer == nullptr) return fail_in(p, KVSIFT_INVALID_ARGUMENT, "buffer is null");
  if (overlap(buffer, bytes, p, p->bytes)) {
    return fail_in(p, KVSIFT_INVALID_ARGUMENT, "buffer overlaps the policy's arena");
  }
  kvsift_error error{};
  const kvsift_status status = load(p, buffer, bytes, &error);
  if (status != KVSIFT_OK) fail_in(p, status, static_cast<const char *>(error.message));
  return status;
}

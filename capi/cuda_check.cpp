#include "cuda_check.h"

namespace kvsift {

bool is_policy(const kvsift_cuda_policy *handle) {
  if (handle == nullptr || reinterpret_cast<std::uintptr_t>(handle) % kAlign != 0) return false;
  return policy_of(handle)->alive == kAliveOnDevice;
}

static kvsift_status tell_fault(CudaPolicy *policy, const Fault &f) {
  const Policy *p = &policy->host;
  switch (f.what) {
    case kFaultTable:
      return fail_in(p, KVSIFT_INVALID_ARGUMENT, "cache->block_table: the device met a negative entry, layer ", f.layer,
                     ", KV head ", f.head, ", ", f.tokens, " tokens");
    case kFaultOtherQuery:
      return fail_in(p, KVSIFT_INVALID_ARGUMENT, "query->view: attention was given another query than the selection, whose tail "
                     "it uses, in layer ", f.layer, ", KV head ", f.head, ", ", f.tokens, " tokens");
    case kFaultCapacity:
      return fail_in(p, KVSIFT_CAPACITY, "the device reached ", f.tokens, " tokens in layer ", f.layer, ", max_tokens is ",
                     p->s.c.max_tokens);
    case kFaultRollback:
      return fail_in(p, KVSIFT_ROLLBACK, "tokens: the device has no state to go back to in KV head ", f.head,
                     "; config.rollback_tokens is ", p->s.c.rollback_tokens);
    default: break;
  }
  const char *const what = f.what == kFaultQuery    ? "query->view"
                           : f.what == kFaultKeys   ? "keys"
                           : f.what == kFaultValues ? "values"
                           : f.what == kFaultAttention ? "cache: an attention output"
                                                       : "observation";
  return fail_in(p, KVSIFT_NOT_FINITE, what, ": the device met NaN or infinity, or what is no probability, in layer ", f.layer,
                 ", KV head ", f.head, ", ", f.tokens, " tokens");
}

kvsift_status check_usable(CudaPolicy *policy) {
  if (policy->lost != KVSIFT_OK) return policy->lost;
  const volatile Fault &seen = *policy->fault;
  const Fault fault{seen.what, seen.layer, seen.head, seen.tokens};
  if (fault.what == kFaultNone) return KVSIFT_OK;
  policy->lost = tell_fault(policy, fault);
  return policy->lost;
}

kvsift_status check_device_query(const Policy *p, const kvsift_query *query) {
  if (kvsift_status s = check_view(p, "query->view", query->view)) return s;
  if (query->tokens > p->s.c.max_tokens) {
    return fail_in(p, KVSIFT_CAPACITY, "query->tokens is ", query->tokens, ", max_tokens is ", p->s.c.max_tokens);
  }
  if (query->rows <= 1) return KVSIFT_OK;
  return fail_in(p, KVSIFT_INVALID_ARGUMENT, "query->rows is ", query->rows, ": a decode step has one");
}

kvsift_status check_device_cache(const Policy *p, const kvsift_cache *cache, std::uint32_t tokens) {
  return check_cache(p, cache, tokens);
}

}  // namespace kvsift

// What the edge of the device's functions checks.
#pragma once

#include "check.h"
#include "cuda/policy/policy.h"
#include "kvsift/kvsift_cuda.h"

namespace kvsift {

inline CudaPolicy *policy_of(kvsift_cuda_policy *handle) { return reinterpret_cast<CudaPolicy *>(handle); }
inline const CudaPolicy *policy_of(const kvsift_cuda_policy *handle) { return reinterpret_cast<const CudaPolicy *>(handle); }

// A handle that create or fork made and destroy has not marked.
bool is_policy(const kvsift_cuda_policy *handle);

// Whether the policy can go on: nothing was lost, and the device has found nothing wrong. Leaves a sentence.
kvsift_status check_usable(CudaPolicy *policy);

// One call on the device, after the checks.
struct CudaJob {
  CudaPolicy *policy;
  HeadSpan span;
  Call call;
  Launcher to;

  std::uint32_t heads() const { return span.end - span.begin; }
  // Marks the policy lost where `status` is a failure: part of the call's work may be in the stream.
  kvsift_status done(kvsift_status status) const {
    if (status != KVSIFT_OK) policy->lost = status;
    return status;
  }
};

inline CudaJob job_of(CudaPolicy *policy, std::uint32_t layer, HeadSpan span, std::uint32_t tokens, void *stream) {
  return CudaJob{policy, span, Call{policy->image, layer, span.begin, tokens},
                 Launcher{policy->device, stream, &policy->host.error}};
}

// The last selection must be of this layer and length, as far as the host knows; the query is a decode step's.
kvsift_status check_attend(CudaPolicy *policy, std::uint32_t layer, const kvsift_query *query, HeadSpan *span);

// The lists of the last selection of a layer, where they lie in the policy's arena.
void describe_choice(const CudaPolicy &policy, std::uint32_t layer, std::uint32_t tokens, kvsift_cuda_selection *out);

// View, row count and length of a decode step's query. The rows themselves are checked on the device.
kvsift_status check_device_query(const Policy *policy, const kvsift_query *query);
kvsift_status check_device_cache(const Policy *policy, const kvsift_cache *cache, std::uint32_t tokens);

}  // namespace kvsift

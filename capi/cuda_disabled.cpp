// The device's functions in a build without CUDA: they exist, and say that there is none.
#include "core/status.h"
#include "kvsift/kvsift_cuda.h"

static kvsift_status no_cuda(const kvsift_policy_config *config) {
  if (config == nullptr) return KVSIFT_INVALID_ARGUMENT;
  if (config->struct_size < sizeof *config) return KVSIFT_INVALID_STRUCT_SIZE;
  return kvsift::fail(config->error, KVSIFT_NO_DEVICE, "this build of the library has no CUDA");
}

extern "C" kvsift_status kvsift_cuda_policy_sizes(const kvsift_policy_config *config, kvsift_cuda_sizes *) {
  return no_cuda(config);
}
extern "C" kvsift_status kvsift_cuda_policy_create(const kvsift_policy_config *config, const kvsift_cuda_arenas *, void *,
                                                   kvsift_cuda_policy **policy) {
  if (policy != nullptr) *policy = nullptr;
  return no_cuda(config);
}

// No handle exists, so none is valid.
extern "C" kvsift_status kvsift_cuda_policy_reset(kvsift_cuda_policy *, void *) { return KVSIFT_INVALID_ARGUMENT; }
extern "C" kvsift_status kvsift_cuda_policy_destroy(kvsift_cuda_policy *) { return KVSIFT_INVALID_ARGUMENT; }
extern "C" kvsift_status kvsift_cuda_policy_get_info(const kvsift_cuda_policy *, kvsift_policy_info *) {
  return KVSIFT_INVALID_ARGUMENT;
}
extern "C" kvsift_status kvsift_cuda_observe_keys(kvsift_cuda_policy *, uint32_t, const kvsift_query *, uint32_t, uint32_t,
                                                  const kvsift_view *, const kvsift_view *, void *) {
  return KVSIFT_INVALID_ARGUMENT;
}
extern "C" kvsift_status kvsift_cuda_select_blocks(kvsift_cuda_policy *, uint32_t, const kvsift_query *, kvsift_cuda_selection *,
                                                   void *) {
  return KVSIFT_INVALID_ARGUMENT;
}
extern "C" kvsift_status kvsift_cuda_attend(kvsift_cuda_policy *, uint32_t, const kvsift_query *, const kvsift_cache *, float *,
                                            kvsift_observation *, void *) {
  return KVSIFT_INVALID_ARGUMENT;
}
extern "C" kvsift_status kvsift_cuda_keep_present(kvsift_cuda_policy *, uint32_t, const kvsift_query *, const kvsift_cache *,
                                                  kvsift_cuda_selection *, void *) {
  return KVSIFT_INVALID_ARGUMENT;
}
extern "C" kvsift_status kvsift_cuda_attend_tail(kvsift_cuda_policy *, uint32_t, const kvsift_query *, float *, float *, void *) {
  return KVSIFT_INVALID_ARGUMENT;
}
extern "C" kvsift_status kvsift_cuda_observe_attention(kvsift_cuda_policy *, uint32_t, const kvsift_query *,
                                                       const kvsift_observation *, void *) {
  return KVSIFT_INVALID_ARGUMENT;
}
extern "C" kvsift_status kvsift_cuda_predict_next(kvsift_cuda_policy *, uint32_t, const kvsift_query *, void *) {
  return KVSIFT_INVALID_ARGUMENT;
}
extern "C" kvsift_status kvsift_cuda_advance(kvsift_cuda_policy *, uint32_t, void *) { return KVSIFT_INVALID_ARGUMENT; }
extern "C" kvsift_status kvsift_cuda_truncate(kvsift_cuda_policy *, uint32_t, void *) { return KVSIFT_INVALID_ARGUMENT; }
extern "C" kvsift_status kvsift_cuda_replayed(kvsift_cuda_policy *, uint32_t, uint32_t) { return KVSIFT_INVALID_ARGUMENT; }
extern "C" kvsift_status kvsift_cuda_observe_prompt(kvsift_cuda_policy *, uint32_t, const kvsift_query *, const kvsift_cache *,
                                                    void *) {
  return KVSIFT_INVALID_ARGUMENT;
}
extern "C" kvsift_status kvsift_cuda_prefill_attend(kvsift_cuda_policy *, uint32_t, const kvsift_query *, const kvsift_cache *,
                                                    float *, void *) {
  return KVSIFT_INVALID_ARGUMENT;
}
extern "C" kvsift_status kvsift_cuda_upload(kvsift_cuda_policy *, const kvsift_policy *, void *) { return KVSIFT_INVALID_ARGUMENT; }
extern "C" kvsift_status kvsift_cuda_download(const kvsift_cuda_policy *, kvsift_policy *, void *) {
  return KVSIFT_INVALID_ARGUMENT;
}
extern "C" kvsift_status kvsift_cuda_fork(const kvsift_cuda_policy *, const kvsift_cuda_arenas *, void *,
                                          kvsift_cuda_policy **copy) {
  if (copy != nullptr) *copy = nullptr;
  return KVSIFT_INVALID_ARGUMENT;
}
extern "C" kvsift_status kvsift_cuda_balance_room(const kvsift_balance_config *config, uint32_t, uint32_t, uint64_t *) {
  if (config == nullptr) return KVSIFT_INVALID_ARGUMENT;
  return kvsift::fail(config->error, KVSIFT_NO_DEVICE, "this build of the library has no CUDA");
}
extern "C" kvsift_status kvsift_cuda_balance_prepare(kvsift_cuda_policy *, const kvsift_balance_config *, uint32_t, uint32_t, void *,
                                                     uint64_t, void *) {
  return KVSIFT_INVALID_ARGUMENT;
}
extern "C" kvsift_status kvsift_cuda_balance_compress(kvsift_cuda_policy *, const kvsift_balance_config *, const kvsift_cache *,
                                                      uint32_t, uint32_t, kvsift_range, void *, uint64_t, uint32_t *, float *,
                                                      uint32_t, uint32_t *, void *) {
  return KVSIFT_INVALID_ARGUMENT;
}
extern "C" const char *kvsift_cuda_last_error(const kvsift_cuda_policy *) { return ""; }

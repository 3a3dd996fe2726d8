// The device store's functions in a build without CUDA: they exist, and say that there is none.
#include "core/status.h"
#include "kvsift/kvsift_cuda.h"

static kvsift_status no_cuda(const kvsift_cuda_store_config *config) {
  if (config == nullptr) return KVSIFT_INVALID_ARGUMENT;
  if (config->struct_size < sizeof *config) return KVSIFT_INVALID_STRUCT_SIZE;
  return kvsift::fail(config->error, KVSIFT_NO_DEVICE, "this build of the library has no CUDA");
}

extern "C" kvsift_status kvsift_cuda_store_config_init(kvsift_cuda_store_config *config) {
  if (config != nullptr && config->struct_size >= sizeof *config) config->error = nullptr;
  return no_cuda(config);
}
extern "C" kvsift_status kvsift_cuda_store_sizes(const kvsift_cuda_store_config *config, kvsift_cuda_sizes *) {
  return no_cuda(config);
}
extern "C" kvsift_status kvsift_cuda_store_create(const kvsift_cuda_store_config *config, const kvsift_cuda_arenas *,
                                                  void *, kvsift_cuda_store **store) {
  if (store != nullptr) *store = nullptr;
  return no_cuda(config);
}

// No handle exists, so none is valid.
extern "C" kvsift_status kvsift_cuda_store_destroy(kvsift_cuda_store *) { return KVSIFT_INVALID_ARGUMENT; }
extern "C" kvsift_status kvsift_cuda_store_append(kvsift_cuda_store *, uint32_t, uint32_t, uint32_t,
                                                  const kvsift_view *, const kvsift_view *, void *) {
  return KVSIFT_INVALID_ARGUMENT;
}
extern "C" kvsift_status kvsift_cuda_store_receive(kvsift_cuda_store *, const kvsift_cuda_selection *, void *,
                                                   kvsift_selection *) {
  return KVSIFT_INVALID_ARGUMENT;
}
extern "C" kvsift_status kvsift_cuda_store_prefetch(kvsift_cuda_store *, uint32_t, const kvsift_selection *, void *,
                                                    kvsift_ticket *) {
  return KVSIFT_INVALID_ARGUMENT;
}
extern "C" kvsift_status kvsift_cuda_store_wait(kvsift_cuda_store *, kvsift_ticket, void *) {
  return KVSIFT_INVALID_ARGUMENT;
}
extern "C" kvsift_status kvsift_cuda_store_poll(kvsift_cuda_store *, kvsift_ticket, uint32_t *) {
  return KVSIFT_INVALID_ARGUMENT;
}
extern "C" kvsift_status kvsift_cuda_store_resolve(kvsift_cuda_store *, uint32_t, kvsift_selection *, kvsift_cache *,
                                                   void *) {
  return KVSIFT_INVALID_ARGUMENT;
}
extern "C" kvsift_status kvsift_cuda_store_truncate(kvsift_cuda_store *, uint32_t, void *) {
  return KVSIFT_INVALID_ARGUMENT;
}
extern "C" kvsift_status kvsift_cuda_store_flush(kvsift_cuda_store *) { return KVSIFT_INVALID_ARGUMENT; }
extern "C" uint32_t kvsift_cuda_store_layer_tokens(const kvsift_cuda_store *, uint32_t) { return 0; }
extern "C" kvsift_status kvsift_cuda_store_get_stats(const kvsift_cuda_store *, kvsift_store_stats *) {
  return KVSIFT_INVALID_ARGUMENT;
}
extern "C" const char *kvsift_cuda_store_last_error(const kvsift_cuda_store *) { return ""; }

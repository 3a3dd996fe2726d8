// Life and steps of a store in front of pinned host memory.
#include <cstring>

#include "cuda/store/steps.h"
#include "store_checks.h"

using namespace kvsift;

static CudaStore *store_of(kvsift_cuda_store *handle) { return reinterpret_cast<CudaStore *>(handle); }
static const CudaStore *store_of(const kvsift_cuda_store *handle) {
  return reinterpret_cast<const CudaStore *>(handle);
}

static bool is_store(const kvsift_cuda_store *handle) {
  if (handle == nullptr || reinterpret_cast<std::uintptr_t>(handle) % kAlign != 0) return false;
  return store_of(handle)->alive == kAliveStore;
}

static kvsift_status check_config(const kvsift_cuda_store_config *config) {
  if (config == nullptr) return KVSIFT_INVALID_ARGUMENT;
  return config->struct_size < sizeof *config ? KVSIFT_INVALID_STRUCT_SIZE : KVSIFT_OK;
}

extern "C" kvsift_status kvsift_cuda_store_config_init(kvsift_cuda_store_config *config) {
  if (kvsift_status s = check_config(config)) return s;
  const uint32_t size = config->struct_size;
  *config = kvsift_cuda_store_config{};
  config->struct_size = size;
  config->block_tokens = 16;
  config->type = config->storage = KVSIFT_F16;
  config->sink_tokens = 16;
  config->local_tokens = 64;
  config->late_blocks = KVSIFT_STORE_NO_LIMIT;
  config->run_blocks = 8;
  return KVSIFT_OK;
}

extern "C" kvsift_status kvsift_cuda_store_sizes(const kvsift_cuda_store_config *config, kvsift_cuda_sizes *sizes) {
  if (kvsift_status s = check_config(config)) return s;
  if (kvsift_status s = check_size(config->error, "sizes", sizes)) return s;
  CudaStorePlaces places;
  if (kvsift_status s = lay_out_store(*config, &places)) return s;
  sizes->device = places.device_bytes;
  sizes->pinned = places.pinned_bytes;
  sizes->host = places.host_bytes;
  return KVSIFT_OK;
}

static kvsift_status check_arena(kvsift_error *error, const char *name, const void *memory, std::uint64_t bytes,
                                 std::uint64_t wanted, std::uint64_t alignment) {
  if (memory == nullptr) return fail(error, KVSIFT_INVALID_ARGUMENT, "arenas->", name, " is null");
  if (reinterpret_cast<std::uintptr_t>(memory) % alignment != 0) {
    return fail(error, KVSIFT_MISALIGNED, "arenas->", name, " is no multiple of ", alignment);
  }
  if (bytes >= wanted) return KVSIFT_OK;
  return fail(error, KVSIFT_ARENA_TOO_SMALL, "arenas->", name, "_bytes is ", bytes, ", ", wanted, " are needed");
}

extern "C" kvsift_status kvsift_cuda_store_create(const kvsift_cuda_store_config *config,
                                                  const kvsift_cuda_arenas *arenas, void *stream,
                                                  kvsift_cuda_store **store) {
  if (store != nullptr) *store = nullptr;
  if (kvsift_status s = check_config(config)) return s;
  kvsift_error *error = config->error;
  if (store == nullptr) return fail(error, KVSIFT_INVALID_ARGUMENT, "store is null");
  if (kvsift_status s = check_size(error, "arenas", arenas)) return s;
  CudaStorePlaces p;
  CudaStore *made = nullptr;
  if (kvsift_status s = lay_out_store(*config, &p)) return s;
  const kvsift_cuda_arenas &a = *arenas;
  if (kvsift_status s = check_arena(error, "device", a.device, a.device_bytes, p.device_bytes, KVSIFT_CUDA_ALIGNMENT))
    return s;
  if (kvsift_status s = check_arena(error, "pinned", a.pinned, a.pinned_bytes, p.pinned_bytes, KVSIFT_CUDA_ALIGNMENT))
    return s;
  if (kvsift_status s = check_arena(error, "host", a.host, a.host_bytes, p.host_bytes, kAlign)) return s;
  if (kvsift_status s = create_store(*config, p, a, stream, &made)) return s;
  *store = reinterpret_cast<kvsift_cuda_store *>(made);
  return KVSIFT_OK;
}

extern "C" kvsift_status kvsift_cuda_store_destroy(kvsift_cuda_store *store) {
  if (!is_store(store)) return KVSIFT_INVALID_ARGUMENT;
  destroy_store(store_of(store));
  return KVSIFT_OK;
}

static kvsift_status check_layer(CudaStore *store, std::uint32_t layer) {
  if (kvsift_status s = check_usable(store)) return s;
  if (layer < store->g.layers) return KVSIFT_OK;
  return fail(&store->error, KVSIFT_INVALID_ARGUMENT, "layer is ", layer, ", the store has ", store->g.layers);
}

extern "C" kvsift_status kvsift_cuda_store_append(kvsift_cuda_store *handle, uint32_t layer, uint32_t first_token,
                                                  uint32_t tokens, const kvsift_view *keys, const kvsift_view *values,
                                                  void *stream) {
  if (!is_store(handle)) return KVSIFT_INVALID_ARGUMENT;
  CudaStore *store = store_of(handle);
  if (kvsift_status s = check_layer(store, layer)) return s;
  const uint32_t have = store->layers[layer].tokens;
  if (kvsift_status s = check_append(&store->error, layer, have, store->g.max_tokens, first_token, tokens)) return s;
  if (tokens == 0) return KVSIFT_OK;
  if (kvsift_status s = check_rows(&store->error, store->g, "keys", keys)) return s;
  if (kvsift_status s = check_rows(&store->error, store->g, "values", values)) return s;
  return append(store, layer, tokens, *keys, *values, static_cast<CUstream>(stream));
}

static kvsift_status copy_out(CudaStore *store, void *to, const void *from, std::uint64_t bytes, CUstream stream) {
  const CUresult copied = store->device.driver.to_host(to, reinterpret_cast<CUdeviceptr>(from), bytes, stream);
  return check_driver(store, copied, "cuMemcpyDtoHAsync");
}

static kvsift_status receive(CudaStore *store, const kvsift_selection &from, CUstream stream) {
  const Driver &d = store->device.driver;
  const std::uint64_t counts = from.lists * sizeof(std::uint32_t), lists = from.lists;
  if (kvsift_status s = copy_out(store, store->counts, from.range_counts, counts, stream)) return s;
  if (kvsift_status s = copy_out(store, store->ranges, from.ranges, lists * from.range_stride * sizeof(kvsift_range), stream)) return s;
  if (from.missed != nullptr) {
    if (kvsift_status s = copy_out(store, store->missed_counts, from.missed_counts, counts, stream)) return s;
    if (kvsift_status s = copy_out(store, store->missed, from.missed, from.missed_stride * counts, stream)) return s;
  }
  if (kvsift_status s = check_driver(store, d.event_record(store->received, stream), "cuEventRecord")) return s;
  return check_driver(store, d.event_synchronize(store->received), "cuEventSynchronize");
}

extern "C" kvsift_status kvsift_cuda_store_receive(kvsift_cuda_store *handle, const kvsift_cuda_selection *from,
                                                   void *stream, kvsift_selection *to) {
  if (!is_store(handle)) return KVSIFT_INVALID_ARGUMENT;
  CudaStore *store = store_of(handle);
  if (kvsift_status s = check_layer(store, 0)) return s;
  if (kvsift_status s = check_size(&store->error, "from", from)) return s;
  if (kvsift_status s = check_size(&store->error, "to", to)) return s;
  const kvsift_selection &lists = from->lists;
  if (lists.tokens == 0 || lists.ranges == nullptr || lists.range_counts == nullptr) {
    return fail(&store->error, KVSIFT_INVALID_ARGUMENT,
                "from->lists: no lists, or tokens is 0: the host must know the length");
  }
  if (lists.missed != nullptr && lists.missed_counts == nullptr) {
    return fail(&store->error, KVSIFT_INVALID_ARGUMENT, "from->lists.missed_counts is null, missed is not");
  }
  const std::uint32_t missed = lists.missed == nullptr ? 0 : lists.missed_stride;
  if (lists.lists > store->g.query_heads || lists.range_stride > store->max_ranges || missed > store->max_ranges) {
    return fail(&store->error, KVSIFT_CAPACITY, "from->lists: ", lists.lists, " lists of ", lists.range_stride, " ranges and ",
                missed, " missed blocks, there is room for ", store->g.query_heads, " of max_ranges ", store->max_ranges);
  }
  if (kvsift_status s = receive(store, lists, static_cast<CUstream>(stream))) return s;
  const uint32_t size = to->struct_size;
  *to = kvsift_selection{};
  to->struct_size = size;
  to->tokens = lists.tokens;
  to->lists = lists.lists;
  to->per_query_head = lists.per_query_head;
  to->everything = lists.everything;
  to->calibration = lists.calibration;
  to->block_tokens = lists.block_tokens;
  to->range_stride = lists.range_stride;
  to->tail = lists.tail;
  to->ranges = store->ranges;
  to->range_counts = store->counts;
  if (lists.missed == nullptr) return KVSIFT_OK;
  to->missed_stride = lists.missed_stride;
  to->missed = store->missed;
  to->missed_counts = store->missed_counts;
  return KVSIFT_OK;
}

constexpr std::uint32_t kLayerBits = 16;

extern "C" kvsift_status kvsift_cuda_store_prefetch(kvsift_cuda_store *handle, uint32_t layer,
                                                    const kvsift_selection *selection, void *stream,
                                                    kvsift_ticket *ticket) {
  if (!is_store(handle)) return KVSIFT_INVALID_ARGUMENT;
  CudaStore *store = store_of(handle);
  if (kvsift_status s = check_layer(store, layer)) return s;
  if (kvsift_status s = check_selection(&store->error, store->g, selection)) return s;
  if (kvsift_status s = prefetch(store, layer, *selection, static_cast<CUstream>(stream))) return s;
  if (ticket != nullptr) *ticket = store->layers[layer].prefetches << kLayerBits | layer;
  return KVSIFT_OK;
}

static kvsift_status check_ticket(CudaStore *store, kvsift_ticket ticket) {
  if (kvsift_status s = check_usable(store)) return s;
  const std::uint64_t layer = ticket & ((1u << kLayerBits) - 1), number = ticket >> kLayerBits;
  if (layer < store->g.layers && number > 0 && number <= store->layers[layer].prefetches) return KVSIFT_OK;
  return fail(&store->error, KVSIFT_INVALID_ARGUMENT, "ticket ", ticket, " was not given by this store");
}

static CUevent fetched(const CudaStore &store, kvsift_ticket ticket) {
  return store.layers[ticket & ((1u << kLayerBits) - 1)].fetched;
}

extern "C" kvsift_status kvsift_cuda_store_wait(kvsift_cuda_store *handle, kvsift_ticket ticket, void *stream) {
  if (!is_store(handle)) return KVSIFT_INVALID_ARGUMENT;
  CudaStore *store = store_of(handle);
  if (kvsift_status s = check_ticket(store, ticket)) return s;
  const CUresult result = store->device.driver.stream_wait(static_cast<CUstream>(stream), fetched(*store, ticket), 0);
  return check_driver(store, result, "cuStreamWaitEvent");
}

extern "C" kvsift_status kvsift_cuda_store_poll(kvsift_cuda_store *handle, kvsift_ticket ticket, uint32_t *done) {
  if (!is_store(handle)) return KVSIFT_INVALID_ARGUMENT;
  CudaStore *store = store_of(handle);
  if (kvsift_status s = check_ticket(store, ticket)) return s;
  if (done == nullptr) return fail(&store->error, KVSIFT_INVALID_ARGUMENT, "done is null");
  const CUresult result = store->device.driver.event_query(fetched(*store, ticket));
  *done = result == CUDA_SUCCESS;
  return result == CUDA_ERROR_NOT_READY ? KVSIFT_OK : check_driver(store, result, "cuEventQuery");
}

extern "C" kvsift_status kvsift_cuda_store_resolve(kvsift_cuda_store *handle, uint32_t layer,
                                                   kvsift_selection *selection, kvsift_cache *cache, void *stream) {
  if (!is_store(handle)) return KVSIFT_INVALID_ARGUMENT;
  CudaStore *store = store_of(handle);
  if (kvsift_status s = check_layer(store, layer)) return s;
  if (kvsift_status s = check_selection(&store->error, store->g, selection)) return s;
  if (kvsift_status s = check_size(&store->error, "cache", cache)) return s;
  if (kvsift_status s = check_no_coreset(&store->error, *selection)) return s;
  if (selection->tokens > store->layers[layer].tokens) {
    return fail(&store->error, KVSIFT_OUT_OF_ORDER, "resolve: the selection is for ", selection->tokens,
                " tokens, layer ", layer, " has ", store->layers[layer].tokens, ": append comes first");
  }
  if (kvsift_status s = resolve(store, layer, selection, static_cast<CUstream>(stream))) return s;
  describe_cache(*store, layer, cache);
  return KVSIFT_OK;
}

extern "C" kvsift_status kvsift_cuda_store_truncate(kvsift_cuda_store *handle, uint32_t tokens, void *stream) {
  if (!is_store(handle)) return KVSIFT_INVALID_ARGUMENT;
  CudaStore *store = store_of(handle);
  if (kvsift_status s = check_usable(store)) return s;
  for (uint32_t layer = 0; layer < store->g.layers; ++layer) {
    if (kvsift_status s = truncate(store, layer, tokens, static_cast<CUstream>(stream))) return s;
  }
  return KVSIFT_OK;
}

extern "C" kvsift_status kvsift_cuda_store_flush(kvsift_cuda_store *handle) {
  if (!is_store(handle)) return KVSIFT_INVALID_ARGUMENT;
  CudaStore *store = store_of(handle);
  if (kvsift_status s = check_usable(store)) return s;
  const CUresult done = store->device.driver.stream_synchronize(store->copies);
  if (kvsift_status s = check_driver(store, done, "cuStreamSynchronize")) return s;
  return check_usable(store);
}

extern "C" uint32_t kvsift_cuda_store_layer_tokens(const kvsift_cuda_store *handle, uint32_t layer) {
  if (!is_store(handle) || layer >= store_of(handle)->g.layers) return 0;
  return store_of(handle)->layers[layer].tokens;
}

extern "C" kvsift_status kvsift_cuda_store_get_stats(const kvsift_cuda_store *handle, kvsift_store_stats *stats) {
  if (!is_store(handle)) return KVSIFT_INVALID_ARGUMENT;
  const CudaStore *store = store_of(handle);
  if (kvsift_status s = check_size(&const_cast<CudaStore *>(store)->error, "stats", stats)) return s;
  const uint32_t size = stats->struct_size;
  *stats = store->stats;
  stats->corrupt_records = static_cast<const volatile StoreFault *>(store->fault)->corrupt;
  stats->struct_size = size;
  return KVSIFT_OK;
}

extern "C" const char *kvsift_cuda_store_last_error(const kvsift_cuda_store *store) {
  return is_store(store) ? store_of(store)->error.message : "";
}

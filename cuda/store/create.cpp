#include <cstring>
#include <new>

#include "cuda/store/slots.h"

namespace kvsift {
namespace {

constexpr std::uint64_t kAlignDevice = KVSIFT_CUDA_ALIGNMENT;

constexpr std::uint64_t align_device(std::uint64_t bytes) { return (bytes + kAlignDevice - 1) / kAlignDevice * kAlignDevice; }

// The geometry is that of the other store, whose slow tier this one does not have.
kvsift_store_config as_store(const kvsift_cuda_store_config &c) {
  kvsift_store_config s{};
  s.struct_size = sizeof s;
  s.backend = KVSIFT_STORE_HOST;
  s.layers = c.layers;
  s.query_heads = c.query_heads;
  s.kv_heads = c.kv_heads;
  s.head_dim = c.head_dim;
  s.max_tokens = c.max_tokens;
  s.block_tokens = c.block_tokens;
  s.type = c.type;
  s.storage = c.storage;
  s.fast_blocks = c.fast_blocks;
  s.resident_layers = c.resident_layers;
  s.sink_tokens = c.sink_tokens;
  s.local_tokens = c.local_tokens;
  s.checksums = c.checksums;
  s.alignment = 64;
  s.threads = s.depth = 1;
  s.error = c.error;
  return s;
}

bool capped(const kvsift_cuda_store_config &c) { return c.late_blocks != KVSIFT_STORE_NO_LIMIT; }

std::uint32_t ranges_of_list(const kvsift_cuda_store_config &c, const Geometry &g) {
  return c.max_ranges != 0 ? c.max_ranges : g.blocks + 1;
}

kvsift_status open_streams(CudaStore *store) {
  const Driver &d = store->device.driver;
  const auto event = [&](CUevent *out) {
    return check_driver(store, d.event_create(out, CU_EVENT_DISABLE_TIMING), "cuEventCreate");
  };
  const CUresult made = d.stream_create(&store->copies, CU_STREAM_NON_BLOCKING);
  if (kvsift_status s = check_driver(store, made, "cuStreamCreate")) return s;
  if (kvsift_status s = event(&store->used)) return s;
  if (kvsift_status s = event(&store->received)) return s;
  for (std::uint32_t i = 0; i < store->g.layers; ++i) {
    if (kvsift_status s = event(&store->layers[i].fetched)) return s;
    if (kvsift_status s = event(&store->layers[i].written)) return s;
  }
  return KVSIFT_OK;
}

void close_streams(CudaStore *store) {
  const Driver &d = store->device.driver;
  if (store->copies != nullptr) d.stream_destroy(store->copies);
  if (store->used != nullptr) d.event_destroy(store->used);
  if (store->received != nullptr) d.event_destroy(store->received);
  for (std::uint32_t i = 0; i < store->g.layers; ++i) {
    if (store->layers[i].fetched != nullptr) d.event_destroy(store->layers[i].fetched);
    if (store->layers[i].written != nullptr) d.event_destroy(store->layers[i].written);
  }
}

kvsift_status start(CudaStore *store, const kvsift_cuda_arenas &arenas, CUstream stream) {
  const Driver &d = store->device.driver;
  CUdeviceptr seen = 0;
  const CUresult found = d.device_pointer(&seen, arenas.pinned, 0);
  if (kvsift_status s = check_driver(store, found, "cuMemHostGetDevicePointer")) return s;
  store->records_seen = reinterpret_cast<const char *>(seen);
  const auto place = reinterpret_cast<char *>(store->fault) - store->records;
  store->fault_seen = reinterpret_cast<StoreFault *>(reinterpret_cast<char *>(seen) + place);
  if (kvsift_status s = open_streams(store)) return s;
  const std::uint64_t entries = store->g.records_of_block() * store->g.blocks;
  const CUresult cleared =
      d.fill(reinterpret_cast<CUdeviceptr>(store->tables), 0xff, entries * sizeof *store->tables, stream);
  if (kvsift_status s = check_driver(store, cleared, "cuMemsetD8Async")) return s;
  return order_streams(store, stream, store->used, store->copies);
}

void clear_state(CudaStore *store) {
  const Geometry &g = store->g;
  std::uint32_t first = 0;
  for (std::uint32_t i = 0; i < g.layers; ++i) {
    CudaLayer *layer = store->layers + i;
    *layer = CudaLayer{};
    layer->first_slot = first;
    layer->slots = g.slots_of_layer(i);
    first += layer->slots;
    reset_slots(store, i);
  }
  const std::uint64_t records = g.records_of_block() * g.blocks;
  for (std::uint64_t i = 0; i < records; ++i) store->entries[i] = kNotHere;
  *store->fault = StoreFault{};
}

void place(const CudaStorePlaces &places, const kvsift_cuda_arenas &arenas, CudaStore *store) {
  auto *device = static_cast<char *>(arenas.device), *pinned = static_cast<char *>(arenas.pinned);
  store->g = places.geometry;
  store->host_bytes = places.host_bytes;
  store->slots = device;
  store->tables = reinterpret_cast<std::int32_t *>(device + places.tables);
  store->sums = places.geometry.checksums != 0 ? reinterpret_cast<std::uint64_t *>(device + places.sums) : nullptr;
  store->records = pinned;
  store->ranges = reinterpret_cast<kvsift_range *>(pinned + places.ranges);
  store->counts = reinterpret_cast<std::uint32_t *>(pinned + places.counts);
  store->missed = reinterpret_cast<std::uint32_t *>(pinned + places.missed);
  store->missed_counts = reinterpret_cast<std::uint32_t *>(pinned + places.missed_counts);
  store->fault = reinterpret_cast<StoreFault *>(pinned + places.fault);
  store->reduced.ranges = places.reduced_ranges.in(arenas.host);
  store->reduced.range_counts = places.reduced_range_counts.in(arenas.host);
  store->reduced.blocks = places.reduced_blocks.in(arenas.host);
  store->reduced.block_counts = places.reduced_block_counts.in(arenas.host);
  store->layers = places.layers.in(arenas.host);
  store->slot_states = places.slot_states.in(arenas.host);
  store->entries = places.entries.in(arenas.host);
}

}  // namespace

kvsift_status lay_out_store(const kvsift_cuda_store_config &c, CudaStorePlaces *p) {
  Geometry &g = p->geometry;
  if (kvsift_status s = make_geometry(as_store(c), &g)) return s;
  const std::uint64_t records = g.records_of_block() * g.blocks;
  const std::uint64_t ranges = std::uint64_t{g.query_heads} * c.max_ranges;
  const std::uint64_t counts = align_device(g.query_heads * sizeof(std::uint32_t));
  p->tables = align_device(g.slots() * g.slot_bytes);
  p->sums = p->tables + align_device(records * sizeof(std::int32_t));
  p->device_bytes = p->sums + align_device(g.checksums != 0 ? records * sizeof(std::uint64_t) : 0);
  p->ranges = align_device(records * g.slot_bytes);
  p->counts = p->ranges + align_device(ranges * sizeof(kvsift_range));
  p->missed = p->counts + counts;
  p->missed_counts = p->missed + align_device(ranges * sizeof(std::uint32_t));
  p->fault = p->missed_counts + counts;
  p->pinned_bytes = p->fault + align_device(sizeof(StoreFault));
  Layout layout;
  layout.take<CudaStore>(1, "store");
  p->layers = layout.take<CudaLayer>(g.layers, "layers");
  p->slot_states = layout.take<CudaSlot>(g.slots(), "slots");
  p->entries = layout.take<std::int32_t>(records, "tables");
  const std::uint64_t lists = capped(c) ? g.query_heads : 0, most = lists * ranges_of_list(c, g);
  p->reduced_ranges = layout.take<kvsift_range>(most, "ranges");
  p->reduced_range_counts = layout.take<std::uint32_t>(lists, "range counts");
  p->reduced_blocks = layout.take<std::uint32_t>(most, "blocks");
  p->reduced_block_counts = layout.take<std::uint32_t>(lists, "block counts");
  p->host_bytes = layout.used();
  return layout.check(c.error);
}

kvsift_status create_store(const kvsift_cuda_store_config &config, const CudaStorePlaces &places,
                           const kvsift_cuda_arenas &arenas, void *stream, CudaStore **out) {
  CudaDevice device;
  if (kvsift_status s = open_device(&device, config.error)) return s;
  auto *store = ::new (arenas.host) CudaStore{};
  store->device = device;
  store->run_blocks = config.run_blocks;
  store->max_ranges = config.max_ranges;
  store->late_blocks = config.late_blocks;
  store->reduced.most = ranges_of_list(config, places.geometry);
  place(places, arenas, store);
  clear_state(store);
  const kvsift_status status = start(store, arenas, static_cast<CUstream>(stream));
  if (status != KVSIFT_OK) {
    if (config.error != nullptr) *config.error = store->error;
    close_streams(store);
    close_device(&store->device);
    return status;
  }
  store->alive = kAliveStore;
  *out = store;
  return KVSIFT_OK;
}

void destroy_store(CudaStore *store) {
  store->device.driver.stream_synchronize(store->copies);
  store->alive = 0;
  close_streams(store);
  close_device(&store->device);
}

static kvsift_status tell_fault(CudaStore *store, const StoreFault &f) {
  const std::uint32_t head = f.record / store->g.blocks, block = f.record % store->g.blocks;
  if (f.what == kStoreFaultNotFinite) {
    return fail(&store->error, KVSIFT_NOT_FINITE, "append: keys or values of layer ", f.layer, ", KV head ", head, ", block ",
                block, " have a value that is not finite");
  }
  return fail(&store->error, KVSIFT_CORRUPT, "layer ", f.layer, ", KV head ", head, ", block ", block,
              ": the record in slow memory does not have the checksum it was written with");
}

kvsift_status check_usable(CudaStore *store) {
  if (store->lost != KVSIFT_OK) return store->lost;
  const volatile StoreFault &seen = *store->fault;
  const StoreFault fault{seen.what, seen.layer, seen.record, seen.corrupt};
  if (fault.what != kStoreFaultNone) store->lost = tell_fault(store, fault);
  return store->lost;
}

kvsift_status check_driver(CudaStore *store, CUresult result, const char *call) {
  const kvsift_status status = check(store->device.driver, result, call, &store->error);
  if (status != KVSIFT_OK) store->lost = status;
  return status;
}

kvsift_status order_streams(CudaStore *store, CUstream earlier, CUevent mark, CUstream later) {
  const Driver &d = store->device.driver;
  if (kvsift_status s = check_driver(store, d.event_record(mark, earlier), "cuEventRecord")) return s;
  return check_driver(store, d.stream_wait(later, mark, 0), "cuStreamWaitEvent");
}

}  // namespace kvsift

// A store's life: arena, threads, end.
#include "store/store.h"

#include <cstring>
#include <new>

#include "core/status.h"
#include "store/recover.h"
#include "store/slots.h"
#include "store/workers.h"

namespace kvsift {
namespace {

// Enough for the workers' own frames and the C library's; above aarch64's PTHREAD_STACK_MIN. ThreadSanitizer keeps most of
// a megabyte there.
#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define KVSIFT_LARGE_STACKS 1
#endif
#endif
#if defined(__SANITIZE_THREAD__) || defined(KVSIFT_LARGE_STACKS)
constexpr std::uint64_t kStackBytes = 2048 * 1024;
#else
constexpr std::uint64_t kStackBytes = 256 * 1024;
#endif

bool uses_ring(const kvsift_store_config &c) {
  return c.backend == KVSIFT_STORE_FILE && c.io != KVSIFT_STORE_IO_THREADS;
}

bool capped(const kvsift_store_config &c) {
  return c.late_blocks != KVSIFT_STORE_NO_LIMIT || c.late_microseconds != KVSIFT_STORE_NO_LIMIT;
}

std::uint64_t ranges_of_list(const kvsift_store_config &c, const Geometry &g) {
  if (!capped(c)) return 0;
  return c.max_ranges != 0 ? c.max_ranges : g.blocks + 1;
}

void copy_settings(const kvsift_store_config &c, Store *store) {
  store->threads = c.threads;
  store->depth = c.depth;
  store->io = c.io;
  store->timing = c.timing;
  store->late_blocks = c.late_blocks;
  store->late_microseconds = c.late_microseconds;
  store->event_capacity = c.trace_events;
  Device &device = store->device;
  device.kind = c.backend;
  device.fd = -1;
  device.bytes = store->g.slow_bytes;
  device.memory = static_cast<std::uint8_t *>(c.host_memory);
  device.name = c.backend == KVSIFT_STORE_HOST ? "host memory" : "device";
  if (c.device != nullptr) device.custom = *c.device;
}

void place(const kvsift_store_config &c, void *arena, const Places &p, Store *store) {
  store->memory = p.memory.in(arena);
  store->entry = reinterpret_cast<ImageEntry *>(p.entry.in(arena));
  store->slots = p.slots.in(arena);
  store->layers = p.layers.in(arena);
  store->tables = p.tables.in(arena);
  store->sums = p.sums.in(arena);
  store->written = p.written.in(arena);
  store->reduced = ReducedLists{p.ranges.in(arena), p.range_counts.in(arena), p.blocks.in(arena), p.block_counts.in(arena),
                                static_cast<std::uint32_t>(ranges_of_list(c, store->g))};
  store->part = p.part.in(arena);
  store->part_counts = p.part_counts.in(arena);
  store->events = p.events.in(arena);
  store->workers = p.workers.in(arena);
  for (std::uint32_t w = 0; w < c.threads; ++w) {
    Worker *worker = ::new (store->workers + w) Worker{};
    worker->store = store;
    worker->number = w + 1;
    worker->jobs = p.jobs.in(arena) + w * (uses_ring(c) ? c.depth : 1u);
    worker->ring = uses_ring(c) ? reinterpret_cast<Ring *>(p.rings.in(arena) + w * ring_bytes()) : nullptr;
    worker->stack = p.stacks.in(arena) + w * kStackBytes;
    worker->stack_bytes = kStackBytes;
  }
  if (c.backend != KVSIFT_STORE_FILE) return;
  std::memcpy(p.path.in(arena), c.path, std::strlen(c.path) + 1);
  store->device.name = p.path.in(arena);
}

void clear_state(Store *store) {
  const Geometry &g = store->g;
  std::uint32_t first = 0;
  for (std::uint32_t l = 0; l < g.layers; ++l) {
    Layer *layer = ::new (store->layers + l) Layer{};
    layer->first_slot = first;
    layer->slots = g.slots_of_layer(l);
    first += layer->slots;
  }
  for (std::uint64_t i = 0; i < g.slots(); ++i) ::new (store->slots + i) Slot{};
  for (std::uint32_t l = 0; l < g.layers; ++l) reset_slots(store, l);
  const std::uint64_t records = g.records_of_block() * g.blocks;
  for (std::uint64_t i = 0; i < records; ++i) store->tables[i] = kNotResident;
  std::memset(store->sums, 0, records * sizeof *store->sums);
  std::memset(store->written, 0, g.blocks * sizeof *store->written);
  for (Queue &queue : store->queues) queue = Queue{kNone, kNone};
}

void release_all(Store *store) {
  stop_workers(store);
  if (store->device.kind == KVSIFT_STORE_FILE) close_file(&store->device);
  store->magic = 0;
}

// Waits for all writes and entries. False where some have failed.
bool wait_written(Store *store) {
  pthread_mutex_lock(&store->mutex);
  pthread_cond_signal(&store->work);
  store->waiting_any = 1;
  while (store->writes_left > 0 || store->committing != 0 || commit_ready(*store)) wait_done(store, 0);
  store->waiting_any = 0;
  const bool good = store->writes_failed == 0 && store->commit_failed == 0;
  pthread_mutex_unlock(&store->mutex);
  return good;
}

// Queues what has failed. Nothing may be under way, or a failure could come between looking and counting.
void write_again(Store *store) {
  Batch again(store);
  for (std::uint32_t i = 0; i < store->g.slots(); ++i) {
    if (store->slots[i].state.load(std::memory_order_acquire) != kUnwritten) continue;
    store->slots[i].state.store(kDirty, std::memory_order_relaxed);
    again.add(i);
  }
  pthread_mutex_lock(&store->mutex);
  store->writes_failed = store->commit_failed = 0;
  pthread_mutex_unlock(&store->mutex);
  again.submit(kWriteBehind);
}

}  // namespace

kvsift_status lay_out(const kvsift_store_config &c, const Geometry &g, Layout *layout, Places *p) {
  const std::uint64_t records = g.records_of_block() * g.blocks;
  const std::uint64_t lists = capped(c) ? g.query_heads : 0, entries = lists * ranges_of_list(c, g);
  // First, and whole multiples of `alignment`: what O_DIRECT reads into.
  p->memory = layout->take<std::uint8_t>(g.slots() * g.slot_bytes, "slots");
  p->entry = layout->take<std::uint8_t>(g.entry_bytes > g.header_bytes ? g.entry_bytes : g.header_bytes, "entry");
  p->store = layout->take<Store>(1, "store");
  p->slots = layout->take<Slot>(g.slots(), "slot states");
  p->layers = layout->take<Layer>(g.layers, "layers");
  p->tables = layout->take<std::int32_t>(records, "tables");
  p->sums = layout->take<std::uint64_t>(records, "checksums");
  p->written = layout->take<std::uint32_t>(g.blocks, "written");
  p->ranges = layout->take<kvsift_range>(entries, "ranges");
  p->range_counts = layout->take<std::uint32_t>(lists, "range counts");
  p->blocks = layout->take<std::uint32_t>(entries, "blocks");
  p->block_counts = layout->take<std::uint32_t>(lists, "block counts");
  p->part = layout->take<kvsift_range>(g.kv_heads, "part");
  p->part_counts = layout->take<std::uint32_t>(g.kv_heads, "part counts");
  p->events = layout->take<kvsift_store_event>(c.trace_events, "trace");
  p->workers = layout->take<Worker>(c.threads, "workers");
  p->jobs = layout->take<Job>(std::uint64_t{c.threads} * (uses_ring(c) ? c.depth : 1), "jobs");
  p->rings = layout->take<std::uint8_t>(uses_ring(c) ? c.threads * ring_bytes() : 0, "rings");
  p->stacks = layout->take<std::uint8_t>(c.threads * kStackBytes, "stacks");
  p->path = layout->take<char>(c.backend == KVSIFT_STORE_FILE ? std::strlen(c.path) + 1 : 0, "path");
  return layout->check(c.error);
}

kvsift_status create_store(const kvsift_store_config &c, bool fresh, void *arena, std::uint64_t bytes,
                           Store **out) {
  Geometry g;
  if (kvsift_status s = make_geometry(c, &g)) return s;
  Layout layout(bytes);
  Places places;
  if (kvsift_status s = lay_out(c, g, &layout, &places)) return s;
  Store *store = ::new (places.store.in(arena)) Store{};
  store->g = g;
  store->arena_bytes = layout.used();
  copy_settings(c, store);
  place(c, arena, places, store);
  clear_state(store);
  kvsift_status status = KVSIFT_OK;
  if (c.backend == KVSIFT_STORE_FILE) {
    status = open_file(&store->device, fresh, c.direct != 0 && c.alignment >= 512, c.error);
  }
  if (status == KVSIFT_OK) status = fresh ? make_image(store, c.error) : recover(store, c.verify != 0, c.error);
  if (status == KVSIFT_OK) status = start_workers(store, c.error);
  if (status != KVSIFT_OK) {
    release_all(store);
    return status;
  }
  store->magic = kStoreMagic;
  *out = store;
  return KVSIFT_OK;
}

kvsift_status flush_store(Store *store) {
  if (!wait_written(store)) {
    write_again(store);
    if (!wait_written(store)) return report_write_error(store);
  }
  const int result = sync(store->device);
  if (result == 0) return KVSIFT_OK;
  return fail(&store->error, KVSIFT_IO, store->device.name, ": sync: ", errno_text(-result), " (errno ", -result,
              ")");
}

kvsift_status close_store(Store *store) {
  const kvsift_status status = flush_store(store);
  release_all(store);
  return status;
}

static kvsift_status report(Store *store, const kvsift_error &error) {
  pthread_mutex_lock(&store->mutex);
  store->error = error;
  pthread_mutex_unlock(&store->mutex);
  return store->error.status;
}

kvsift_status report_read_error(Store *store) { return report(store, store->read_error); }
kvsift_status report_write_error(Store *store) { return report(store, store->write_error); }

}  // namespace kvsift

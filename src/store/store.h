// The store's state. Two sides share it: the caller's thread, which owns the layers, their tables and the LRU order, and
// the worker threads, which move records. What passes between them is under `mutex`, but for a slot's state.
//
//     caller:   free or clean slot -> fetching -> (worker) clean or failed
//               free or clean slot -> open, rows come in -> dirty -> (worker) clean or unwritten
#pragma once

#include <atomic>
#include <cstdint>

#include <pthread.h>

#include "core/arena.h"
#include "store/device.h"
#include "store/geometry.h"
#include "store/image.h"
#include "store/reduce.h"

namespace kvsift {

constexpr std::uint32_t kNone = UINT32_MAX;

enum SlotState : std::uint32_t {
  kFree,
  kOpen,       // the block that append fills
  kDirty,      // complete, being written
  kUnwritten,  // its write failed
  kClean,
  kFetching,
  kFailed  // its fetch failed
};

struct Slot {
  std::atomic<std::uint32_t> state;
  std::uint32_t block, head, layer;
  std::uint32_t newer, older;  // LRU of the layer, local indexes
  std::uint64_t epoch;         // of the call that last wanted it
  std::uint32_t prefetched;    // 1: brought by a prefetch and not yet used
  std::uint32_t wanted;        // 1: resolve waits for it (mutex)
  // A transfer is a chain of slots whose records are adjacent; the first one stands in the queue.
  std::uint32_t run_next, run_count, queue_next;
};

// Table entries: a slot of the layer, kNotResident, or a slot on its way in.
constexpr std::int32_t kNotResident = -1;
constexpr std::int32_t in_flight(std::uint32_t slot) { return -2 - static_cast<std::int32_t>(slot); }
constexpr std::uint32_t slot_in_flight(std::int32_t entry) { return static_cast<std::uint32_t>(-2 - entry); }

struct Layer {
  std::uint32_t first_slot, slots;
  std::uint32_t newest, oldest;  // ends of the LRU
  std::uint32_t tokens;
  std::uint64_t prefetches, prefetches_done;
  std::atomic<std::uint32_t> fetching;  // slots of the layer that are being fetched (written under the mutex)
  std::uint32_t fetch_failed;           // 1: a fetch failed since the last wait (mutex)
};

struct Queue {
  std::uint32_t first, last;
};

enum QueueClass { kUrgent, kAhead, kWriteBehind, kQueueClasses };

enum JobKind : std::uint32_t { kJobRead, kJobWrite, kJobCommit };

// A transfer that a worker has in hand.
struct Job {
  JobKind kind;
  std::uint32_t slot, records;  // first of the chain
  std::uint32_t urgent;         // 1: resolve waits for it
  std::uint64_t offset, bytes;
  std::uint64_t begin_ns;
  int result;               // as of transfer()
  std::uint32_t bad;        // slot whose record does not match its checksum, or kNone
  std::uint32_t span_count;
  Span spans[kRunMost];
};

struct Store;
struct Ring;

struct Worker {
  pthread_t thread;
  Store *store;
  std::uint32_t number;
  Job *jobs;   // [1], or [depth] with a ring
  Ring *ring;  // null: plain reads and writes
  std::uint32_t background;  // transfers in hand that nobody waits for (mutex)
  std::uint8_t *stack;
  std::uint64_t stack_bytes;
};

struct Store {
  std::uint32_t magic;
  Geometry g;
  Device device;
  std::uint64_t identity;
  std::uint32_t epoch;  // of the image's entries
  std::uint64_t arena_bytes;
  std::uint32_t threads, depth, io, timing, late_blocks, late_microseconds;
  mutable kvsift_error error;  // of the last failed call

  std::uint8_t *memory;  // [slots][slot_bytes]
  Slot *slots;
  Layer *layers;
  std::int32_t *tables;  // [layers][kv_heads][blocks]
  std::uint64_t *sums;   // [records], checksums
  std::uint64_t call;    // grows with every prefetch and resolve
  ImageEntry *entry;     // the one that is being written
  ReducedLists reduced;  // by a late cap
  kvsift_range *part;  // [KV heads] and counts: the selection that reads a stretch of one head
  std::uint32_t *part_counts;
  kvsift_store_stats counts;  // those of the caller's side

  pthread_mutex_t mutex;  // guards what follows
  pthread_cond_t work, done;
  std::uint32_t locks_made, rings_made, stopping, started;
  Queue queues[kQueueClasses];
  std::uint32_t *written;  // [blocks]: records of the block that are on the slow tier
  std::uint32_t committed, committing, commit_failed;
  std::uint32_t entries;        // no block from here on has an entry that open would take; some before may be damaged
  std::uint32_t writes_left;    // queued or under way
  std::uint32_t writes_failed;  // slots in kUnwritten
  std::uint32_t wanted_left;    // slots that resolve waits for
  std::uint32_t waiting_any;    // the caller waits for whatever comes
  std::uint64_t completions;
  std::uint32_t reads_under_way;
  std::uint64_t reads_began_ns;
  kvsift_store_stats worker_counts;
  kvsift_error read_error, write_error;  // of the last transfer that failed
  kvsift_store_event *events;  // ring
  std::uint32_t event_capacity, event_first, event_count;
  Worker *workers;

  std::uint8_t *data(std::uint32_t slot) const { return memory + slot * g.slot_bytes; }
  std::int32_t *table(std::uint32_t layer) const {
    return tables + std::uint64_t{layer} * g.kv_heads * g.blocks;
  }
};

constexpr std::uint32_t kStoreMagic = 0x6b767374;

// The arena of a store.
struct Places {
  Offset<std::uint8_t> memory;
  Offset<std::uint8_t> entry;
  Offset<Store> store;
  Offset<Slot> slots;
  Offset<Layer> layers;
  Offset<std::int32_t> tables;
  Offset<std::uint64_t> sums;
  Offset<std::uint32_t> written;
  Offset<kvsift_range> ranges, part;
  Offset<std::uint32_t> range_counts, blocks, block_counts, part_counts;
  Offset<kvsift_store_event> events;
  Offset<Worker> workers;
  Offset<Job> jobs;
  Offset<std::uint8_t> rings;
  Offset<std::uint8_t> stacks;
  Offset<char> path;
};

kvsift_status lay_out(const kvsift_store_config &config, const Geometry &g, Layout *layout, Places *places);
kvsift_status create_store(const kvsift_store_config &config, bool fresh, void *arena, std::uint64_t bytes,
                           Store **store);
kvsift_status flush_store(Store *store);
kvsift_status close_store(Store *store);

// Copies the workers' sentence to the caller's; returns its status.
kvsift_status report_read_error(Store *store);
kvsift_status report_write_error(Store *store);

}  // namespace kvsift

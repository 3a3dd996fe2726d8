#include "store/workers.h"

#include <cerrno>
#include <cstring>

#include "core/status.h"
#include "store/clock.h"
#include "store/trace.h"

namespace kvsift {
namespace {

void append_chain(Store *store, Queue *queue, Queue chains) {
  if (queue->first == kNone) queue->first = chains.first;
  else store->slots[queue->last].queue_next = chains.first;
  queue->last = chains.last;
}

// Fills the job from the chain that starts at `first`.
void describe(Store *store, JobKind kind, std::uint32_t first, Job *job) {
  const Slot &head = store->slots[first];
  job->kind = kind;
  job->slot = first;
  job->records = head.run_count;
  job->offset = store->g.record_at(head.layer, head.head, head.block);
  job->bytes = head.run_count * store->g.slot_bytes;
  job->span_count = 0;
  for (std::uint32_t s = first; s != kNone; s = store->slots[s].run_next) {
    job->spans[job->span_count++] = Span{store->data(s), store->g.slot_bytes};
  }
}

void describe_commit(Store *store, Job *job) {
  const Geometry &g = store->g;
  store->committing = 1;
  // From now on: one whose write is said to have failed may be there all the same.
  if (store->entries <= store->committed) store->entries = store->committed + 1;
  job->kind = kJobCommit;
  job->slot = kNone;
  job->records = 0;
  job->offset = g.entry_at(store->committed);
  job->bytes = g.entry_bytes;
  job->span_count = 1;
  job->spans[0] = Span{store->entry, g.entry_bytes};
  const std::uint64_t used = sizeof(ImageEntry) + g.records_of_block() * sizeof(std::uint64_t);
  std::memset(reinterpret_cast<char *>(store->entry) + used, 0, g.entry_bytes - used);
  for (std::uint32_t i = 0; i < g.records_of_block(); ++i) {
    store->entry->sums()[i] = store->sums[std::uint64_t{i} * g.blocks + store->committed];
  }
  seal_entry(g, store->identity, store->committed, store->epoch, store->entry);
}

void note_failure(Store *store, const Job &job) {
  ++store->worker_counts.io_errors;
  const bool write = job.kind != kJobRead;
  fail_transfer(write ? &store->write_error : &store->read_error, store->device, write, job.offset, job.result);
}

void note_corrupt(Store *store, const Job &job) {
  const Slot &slot = store->slots[job.bad];
  ++store->worker_counts.corrupt_records;
  fail(&store->read_error, KVSIFT_CORRUPT, store->device.name, ": offset ",
       store->g.record_at(slot.layer, slot.head, slot.block), ": the record of layer ", slot.layer,
       ", KV head ", slot.head, ", block ", slot.block, " does not match its checksum");
}

// Under the mutex, so that no read-modify-write is needed; others only look.
std::uint32_t change_fetching(Layer *layer, std::int32_t by) {
  const std::uint32_t now = layer->fetching.load(std::memory_order_relaxed) + static_cast<std::uint32_t>(by);
  layer->fetching.store(now, std::memory_order_release);
  return now;
}

// True where the caller may be waiting for just this.
bool finish_read(Store *store, Job *job) {
  bool wake = false;
  Layer &layer = store->layers[store->slots[job->slot].layer];
  if (job->result != 0) note_failure(store, *job);
  else if (job->bad != kNone) note_corrupt(store, *job);
  const bool good = job->result == 0 && job->bad == kNone;
  if (!good) layer.fetch_failed = 1;
  for (std::uint32_t s = job->slot; s != kNone;) {
    Slot &slot = store->slots[s];
    s = slot.run_next;
    if (slot.wanted != 0) {
      slot.wanted = 0;
      wake = --store->wanted_left == 0;
    }
    slot.state.store(good ? kClean : kFailed, std::memory_order_release);
  }
  if (change_fetching(&layer, -static_cast<std::int32_t>(job->records)) == 0) wake = true;
  if (good) store->worker_counts.bytes_read += job->bytes;
  ++store->worker_counts.reads;
  if (--store->reads_under_way == 0 && store->timing != 0) {
    store->worker_counts.read_ns += now_ns() - store->reads_began_ns;
  }
  return wake;
}

void finish_write(Store *store, Job *job) {
  if (job->result != 0) {
    note_failure(store, *job);
    store->writes_failed += job->records;
  } else {
    store->worker_counts.bytes_written += job->bytes;
  }
  ++store->worker_counts.writes;
  store->writes_left -= job->records;
  for (std::uint32_t s = job->slot; s != kNone;) {
    Slot &slot = store->slots[s];
    s = slot.run_next;
    if (job->result == 0) ++store->written[slot.block];
    slot.state.store(job->result == 0 ? kClean : kUnwritten, std::memory_order_release);
  }
}

void finish_commit(Store *store, Job *job) {
  store->committing = 0;
  if (job->result == 0) {
    ++store->committed;
    store->worker_counts.bytes_written += job->bytes;
    return;
  }
  note_failure(store, *job);
  store->commit_failed = 1;
}

kvsift_store_event event_of(const Store &store, const Worker &worker, const Job &job) {
  kvsift_store_event event{job.begin_ns, now_ns(), job.kind, worker.number, 0, 0, store.committed, 1};
  if (job.kind == kJobCommit) return event;
  const Slot &slot = store.slots[job.slot];
  event.layer = slot.layer;
  event.kv_head = slot.head;
  event.block = slot.block;
  event.blocks = job.records;
  return event;
}

}  // namespace

void *plain_worker(void *argument) {
  Worker *worker = static_cast<Worker *>(argument);
  Store *store = worker->store;
  Job *job = worker->jobs;
  pthread_mutex_lock(&store->mutex);
  while (store->stopping == 0) {
    if (!take_job(worker, job)) {
      pthread_cond_wait(&store->work, &store->mutex);
      continue;
    }
    pthread_mutex_unlock(&store->mutex);
    before_transfer(store, job);
    Span spans[kRunMost];
    std::memcpy(spans, job->spans, job->span_count * sizeof(Span));
    job->result = transfer(store->device, job->kind != kJobRead, job->offset, spans, job->span_count);
    after_transfer(store, job);
    pthread_mutex_lock(&store->mutex);
    finish_job(worker, job);
  }
  pthread_mutex_unlock(&store->mutex);
  return nullptr;
}

void Batch::add(std::uint32_t s) {
  Slot &slot = store_->slots[s];
  slot.run_next = kNone;
  slot.run_count = 1;
  slot.queue_next = kNone;
  ++records_;
  if (tail_ != kNone) {
    Slot &first = store_->slots[chains_.last];
    const Slot &last = store_->slots[tail_];
    if (first.run_count < kRunMost && last.layer == slot.layer && last.head == slot.head &&
        last.block + 1 == slot.block) {
      store_->slots[tail_].run_next = s;
      ++first.run_count;
      tail_ = s;
      return;
    }
    store_->slots[chains_.last].queue_next = s;
  } else {
    chains_.first = s;
  }
  chains_.last = tail_ = s;
  ++chain_count_;
}

void Batch::submit(QueueClass where) {
  if (records_ == 0) return;
  pthread_mutex_lock(&store_->mutex);
  append_chain(store_, &store_->queues[where], chains_);
  if (where == kWriteBehind) {
    store_->writes_left += records_;
  } else {
    change_fetching(&store_->layers[store_->slots[chains_.first].layer], static_cast<std::int32_t>(records_));
  }
  if (chain_count_ == 1) pthread_cond_signal(&store_->work);
  else pthread_cond_broadcast(&store_->work);
  pthread_mutex_unlock(&store_->mutex);
  chains_ = Queue{kNone, kNone};
  tail_ = kNone;
  chain_count_ = records_ = 0;
}

bool commit_ready(const Store &store) {
  return store.committing == 0 && store.commit_failed == 0 && store.committed < store.g.blocks &&
         store.written[store.committed] == store.g.records_of_block();
}

// With a ring the disk's own queue would hold up what is urgent: most of its depth is kept for that.
static bool may_take(const Worker &worker, std::uint32_t queue) {
  if (queue == kUrgent || worker.ring == nullptr) return true;
  const std::uint32_t most = worker.store->depth / 4;
  return worker.background < (most > 0 ? most : 1);
}

bool take_job(Worker *worker, Job *job) {
  Store *store = worker->store;
  job->begin_ns = event_clock(*store);
  job->bad = kNone;
  job->result = 0;
  for (std::uint32_t c = 0; c < kQueueClasses && may_take(*worker, c); ++c) {
    job->urgent = c == kUrgent;
    // Entries go before further records: a block that is whole should count as soon as it can.
    if (c == kWriteBehind && commit_ready(*store)) {
      describe_commit(store, job);
      ++worker->background;
      return true;
    }
    Queue &queue = store->queues[c];
    if (queue.first == kNone) continue;
    const std::uint32_t first = queue.first;
    queue.first = store->slots[first].queue_next;
    if (queue.first == kNone) queue.last = kNone;
    describe(store, c == kWriteBehind ? kJobWrite : kJobRead, first, job);
    worker->background += job->urgent == 0;
    if (job->kind == kJobRead && store->reads_under_way++ == 0) store->reads_began_ns = job->begin_ns;
    return true;
  }
  return false;
}

void before_transfer(Store *store, Job *job) {
  if (job->kind != kJobWrite) return;
  const Geometry &g = store->g;
  for (std::uint32_t s = job->slot; s != kNone; s = store->slots[s].run_next) {
    const Slot &slot = store->slots[s];
    const std::uint64_t index = g.record_index(slot.layer, slot.head, slot.block);
    store->sums[index] =
        g.checksums != 0 ? record_sum(store->data(s), g.record_bytes, store->identity, index) : 0;
  }
}

void after_transfer(Store *store, Job *job) {
  const Geometry &g = store->g;
  if (job->kind != kJobRead || job->result != 0 || g.checksums == 0) return;
  for (std::uint32_t s = job->slot; s != kNone; s = store->slots[s].run_next) {
    const Slot &slot = store->slots[s];
    const std::uint64_t index = g.record_index(slot.layer, slot.head, slot.block);
    if (store->sums[index] == record_sum(store->data(s), g.record_bytes, store->identity, index)) continue;
    job->bad = s;
    return;
  }
}

void finish_job(Worker *worker, Job *job) {
  Store *store = worker->store;
  worker->background -= job->urgent == 0;
  if (store->event_capacity != 0) add_event(store, event_of(*store, *worker, *job));
  bool wake = store->waiting_any != 0;
  if (job->kind == kJobRead) wake |= finish_read(store, job);
  else if (job->kind == kJobWrite) finish_write(store, job);
  else finish_commit(store, job);
  ++store->completions;
  if (commit_ready(*store)) pthread_cond_signal(&store->work);
  if (wake) pthread_cond_signal(&store->done);
}

bool wait_done(Store *store, std::uint64_t deadline_ns) {
  if (deadline_ns == 0) {
    pthread_cond_wait(&store->done, &store->mutex);
    return true;
  }
  timespec until;
  until.tv_sec = static_cast<time_t>(deadline_ns / 1000000000u);
  until.tv_nsec = static_cast<long>(deadline_ns % 1000000000u);
  return pthread_cond_timedwait(&store->done, &store->mutex, &until) != ETIMEDOUT;
}

}  // namespace kvsift

// The worker threads, and how the caller hands them transfers and waits for them.
#pragma once

#include "store/store.h"

namespace kvsift {

// Chains of slots put together by the caller, to be queued at one go.
class Batch {
 public:
  explicit Batch(Store *store) : store_(store) {}

  // Appends a slot; it joins the last chain where its record follows on.
  void add(std::uint32_t slot);
  // Queues everything; state and counters of the slots have been set by the caller.
  void submit(QueueClass where);
  std::uint32_t records() const { return records_; }

 private:
  Store *store_;
  Queue chains_ = {kNone, kNone};
  std::uint32_t tail_ = kNone;  // last slot of the last chain
  std::uint32_t chain_count_ = 0, records_ = 0;
};

kvsift_status start_workers(Store *store, kvsift_error *error);
void stop_workers(Store *store);

// For the workers. Both want the mutex held: take the next transfer; give it back done.
bool take_job(Worker *worker, Job *job);
void finish_job(Worker *worker, Job *job);
// True where the next block only waits for its entry.
bool commit_ready(const Store &store);
// What lies around the transfer, without the mutex: checksums.
void before_transfer(Store *store, Job *job);
void after_transfer(Store *store, Job *job);

// Waits, mutex held, until `ready()` or the deadline (0: none). False at the deadline.
bool wait_done(Store *store, std::uint64_t deadline_ns);

template <class Ready>
bool wait_until(Store *store, std::uint64_t deadline_ns, Ready ready) {
  pthread_mutex_lock(&store->mutex);
  bool in_time = true;
  while (!ready() && in_time) in_time = wait_done(store, deadline_ns);
  in_time = ready();
  pthread_mutex_unlock(&store->mutex);
  return in_time;
}

// io_uring. ring_bytes: of a Ring in the arena. open_ring returns false where the kernel refuses.
std::uint64_t ring_bytes();
bool open_ring(Ring *ring, std::uint32_t depth);
void close_ring(Ring *ring);
void *ring_worker(void *worker);
void *plain_worker(void *worker);

}  // namespace kvsift

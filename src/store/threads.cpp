// Starting and joining the workers, on stacks in the arena.
#include <cerrno>

#include <signal.h>

#include "core/status.h"
#include "store/workers.h"

namespace kvsift {
namespace {

// All workers with rings, or none.
bool open_rings(Store *store) {
  for (std::uint32_t w = 0; w < store->threads; ++w) {
    if (store->workers[w].ring == nullptr) return false;
    if (open_ring(store->workers[w].ring, store->depth)) continue;
    while (w-- > 0) close_ring(store->workers[w].ring);
    for (std::uint32_t i = 0; i < store->threads; ++i) store->workers[i].ring = nullptr;
    return false;
  }
  return true;
}

bool make_locks(Store *store) {
  pthread_condattr_t monotonic;
  if (pthread_condattr_init(&monotonic) != 0) return false;
  pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
  pthread_mutex_init(&store->mutex, nullptr);
  pthread_cond_init(&store->work, nullptr);
  pthread_cond_init(&store->done, &monotonic);
  pthread_condattr_destroy(&monotonic);
  store->locks_made = 1;
  return true;
}

// A program whose thread-local data does not fit in our stacks (sanitizers have as much) gets the C library's.
int start(Worker *worker) {
  const auto run = worker->ring != nullptr ? ring_worker : plain_worker;
  pthread_attr_t attributes;
  int result = pthread_attr_init(&attributes);
  if (result != 0) return result;
  result = pthread_attr_setstack(&attributes, worker->stack, worker->stack_bytes);
  if (result == 0) result = pthread_create(&worker->thread, &attributes, run, worker);
  pthread_attr_destroy(&attributes);
  return result == EINVAL ? pthread_create(&worker->thread, nullptr, run, worker) : result;
}

// The application's signals are for its own threads: its handlers may want more stack than workers have. Faults are answered
// where they occur, or not at all.
void block_signals(sigset_t *before) {
  const int faults[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS};
  sigset_t others;
  sigfillset(&others);
  for (const int fault : faults) sigdelset(&others, fault);
  pthread_sigmask(SIG_BLOCK, &others, before);
}

int start_all(Store *store) {
  sigset_t before;
  block_signals(&before);  // threads begin with their maker's mask
  int result = 0;
  while (store->started < store->threads && result == 0) {
    result = start(store->workers + store->started);
    if (result == 0) ++store->started;
  }
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  return result;
}

}  // namespace

kvsift_status start_workers(Store *store, kvsift_error *error) {
  const bool rings = open_rings(store);
  if (!rings && store->io == KVSIFT_STORE_IO_URING) {
    return fail(error, KVSIFT_UNSUPPORTED, "store config: io asks for io_uring, which this kernel does not allow");
  }
  store->rings_made = rings;
  store->io = rings ? KVSIFT_STORE_IO_URING : KVSIFT_STORE_IO_THREADS;
  if (!make_locks(store)) return fail(error, KVSIFT_IO, "store: no memory for its locks");
  const int result = start_all(store);
  if (result == 0) return KVSIFT_OK;
  return fail(error, KVSIFT_IO, "store: starting thread ", store->started, ": errno ", result);
}

void stop_workers(Store *store) {
  if (store->locks_made != 0) {
    pthread_mutex_lock(&store->mutex);
    store->stopping = 1;
    pthread_cond_broadcast(&store->work);
    pthread_mutex_unlock(&store->mutex);
    for (std::uint32_t w = 0; w < store->started; ++w) pthread_join(store->workers[w].thread, nullptr);
    pthread_cond_destroy(&store->done);
    pthread_cond_destroy(&store->work);
    pthread_mutex_destroy(&store->mutex);
    store->locks_made = store->started = 0;
  }
  for (std::uint32_t w = 0; store->rings_made != 0 && w < store->threads; ++w) close_ring(store->workers[w].ring);
  store->rings_made = 0;
}

}  // namespace kvsift

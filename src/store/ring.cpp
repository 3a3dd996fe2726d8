// io_uring by its system calls: liburing would be one more library on the link line of every user. Each worker has a ring
// of its own, keeps up to `depth` transfers in flight and, while it has any, sleeps in the kernel until one is done; new
// work goes to a worker that is idle, or is taken up with the next completion.
#include <cerrno>
#include <cstring>
#include <new>

#include "store/workers.h"

#if defined(__linux__) && defined(__has_include)
#if __has_include(<linux/io_uring.h>)
#define KVSIFT_HAS_RING 1
#endif
#endif

#ifdef KVSIFT_HAS_RING
#include <linux/io_uring.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>
#endif

namespace kvsift {

struct Ring {
  int fd;
  std::uint32_t depth, in_flight, free_count;
  std::uint8_t free[256];
#ifdef KVSIFT_HAS_RING
  void *submit_map, *complete_map, *entries_map;
  std::uint64_t submit_bytes, complete_bytes, entries_bytes;
  std::uint32_t *submit_tail, *submit_mask, *submit_array;
  std::uint32_t *complete_head, *complete_tail, *complete_mask;
  io_uring_sqe *entries;
  io_uring_cqe *results;
#endif
};

std::uint64_t ring_bytes() { return sizeof(Ring); }

#ifdef KVSIFT_HAS_RING
namespace {

template <class T>
T *at(void *map, std::uint32_t offset) {
  return reinterpret_cast<T *>(static_cast<char *>(map) + offset);
}

void *map_ring(const Ring &ring, std::uint64_t bytes, off_t what) {
  return mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, ring.fd, what);
}

bool map_all(Ring *ring, const io_uring_params &p) {
  ring->submit_bytes = p.sq_off.array + p.sq_entries * sizeof(std::uint32_t);
  ring->complete_bytes = p.cq_off.cqes + p.cq_entries * sizeof(io_uring_cqe);
  ring->entries_bytes = p.sq_entries * sizeof(io_uring_sqe);
  ring->submit_map = map_ring(*ring, ring->submit_bytes, IORING_OFF_SQ_RING);
  ring->complete_map = map_ring(*ring, ring->complete_bytes, IORING_OFF_CQ_RING);
  ring->entries_map = map_ring(*ring, ring->entries_bytes, IORING_OFF_SQES);
  if (ring->submit_map == MAP_FAILED || ring->complete_map == MAP_FAILED ||
      ring->entries_map == MAP_FAILED) {
    return false;
  }
  ring->submit_tail = at<std::uint32_t>(ring->submit_map, p.sq_off.tail);
  ring->submit_mask = at<std::uint32_t>(ring->submit_map, p.sq_off.ring_mask);
  ring->submit_array = at<std::uint32_t>(ring->submit_map, p.sq_off.array);
  ring->complete_head = at<std::uint32_t>(ring->complete_map, p.cq_off.head);
  ring->complete_tail = at<std::uint32_t>(ring->complete_map, p.cq_off.tail);
  ring->complete_mask = at<std::uint32_t>(ring->complete_map, p.cq_off.ring_mask);
  ring->results = at<io_uring_cqe>(ring->complete_map, p.cq_off.cqes);
  ring->entries = static_cast<io_uring_sqe *>(ring->entries_map);
  return true;
}

void unmap(void *map, std::uint64_t bytes) {
  if (map != nullptr && map != MAP_FAILED) munmap(map, bytes);
}

void put(Ring *ring, const Device &device, const Job &job, std::uint32_t index) {
  const std::uint32_t tail = *ring->submit_tail;
  const std::uint32_t slot = tail & *ring->submit_mask;
  io_uring_sqe *entry = ring->entries + slot;
  std::memset(entry, 0, sizeof *entry);
  entry->opcode = job.kind == kJobRead ? IORING_OP_READV : IORING_OP_WRITEV;
  entry->fd = device.fd;
  entry->off = job.offset;
  entry->addr = reinterpret_cast<std::uintptr_t>(job.spans);
  entry->len = job.span_count;
  entry->user_data = index;
  ring->submit_array[slot] = slot;
  __atomic_store_n(ring->submit_tail, tail + 1, __ATOMIC_RELEASE);
  ++ring->in_flight;
}

// Submits what was put and waits for at least one result. Returns how many, the last ones, the kernel has not taken: it may
// refuse the call as such, to a process that has locked itself in for example.
std::uint32_t enter(Ring *ring, std::uint32_t fresh) {
  while (true) {
    const long done = syscall(__NR_io_uring_enter, ring->fd, fresh, 1, IORING_ENTER_GETEVENTS, nullptr, 0);
    if (done >= 0) fresh -= fresh < static_cast<std::uint32_t>(done) ? fresh : static_cast<std::uint32_t>(done);
    if (done >= 0 && fresh == 0) return 0;
    if (done < 0 && errno != EINTR && errno != EAGAIN && errno != EBUSY) return fresh;
  }
}

// A part of a transfer is finished the plain way: it hardly ever happens.
void complete(Store *store, Job *job, std::int32_t result) {
  if (result < 0 && result != -EINTR && result != -EAGAIN) {
    job->result = result;
  } else if (result < 0 || static_cast<std::uint64_t>(result) < job->bytes) {
    const std::uint64_t done = result < 0 ? 0 : static_cast<std::uint64_t>(result);
    Span copy[kRunMost];
    std::memcpy(copy, job->spans, sizeof copy);
    Span *spans = copy;
    std::uint32_t count = job->span_count;
    skip(&spans, &count, done);
    job->result = transfer(store->device, job->kind != kJobRead, job->offset + done, spans, count);
  } else {
    job->result = 0;
  }
  after_transfer(store, job);
}

void finish(Worker *worker, std::uint32_t index, std::int32_t result) {
  Store *store = worker->store;
  Ring *ring = worker->ring;
  complete(store, worker->jobs + index, result);
  pthread_mutex_lock(&store->mutex);
  finish_job(worker, worker->jobs + index);
  pthread_mutex_unlock(&store->mutex);
  ring->free[ring->free_count++] = static_cast<std::uint8_t>(index);
  --ring->in_flight;
}

// Takes back the last `count` transfers that were put, and does them the plain way.
void take_back(Worker *worker, const std::uint8_t *indexes, std::uint32_t count) {
  Ring *ring = worker->ring;
  __atomic_store_n(ring->submit_tail, *ring->submit_tail - count, __ATOMIC_RELEASE);
  for (std::uint32_t i = 0; i < count; ++i) finish(worker, indexes[i], -EAGAIN);
}

void reap(Worker *worker) {
  Ring *ring = worker->ring;
  std::uint32_t head = *ring->complete_head;
  while (head != __atomic_load_n(ring->complete_tail, __ATOMIC_ACQUIRE)) {
    const io_uring_cqe result = ring->results[head & *ring->complete_mask];
    __atomic_store_n(ring->complete_head, ++head, __ATOMIC_RELEASE);
    finish(worker, static_cast<std::uint32_t>(result.user_data), result.res);
  }
}

}  // namespace

bool open_ring(Ring *ring, std::uint32_t depth) {
  *ring = Ring{};
  io_uring_params params;
  std::memset(&params, 0, sizeof params);
  ring->fd = sizeof(void *) == 8 ? static_cast<int>(syscall(__NR_io_uring_setup, depth, &params)) : -1;
  if (ring->fd < 0) return false;
  if (!map_all(ring, params)) {
    close_ring(ring);
    return false;
  }
  ring->depth = ring->free_count = depth;
  for (std::uint32_t i = 0; i < depth; ++i) ring->free[i] = static_cast<std::uint8_t>(i);
  return true;
}

void close_ring(Ring *ring) {
  unmap(ring->submit_map, ring->submit_bytes);
  unmap(ring->complete_map, ring->complete_bytes);
  unmap(ring->entries_map, ring->entries_bytes);
  if (ring->fd >= 0) close(ring->fd);
  *ring = Ring{};
  ring->fd = -1;
}

void *ring_worker(void *argument) {
  Worker *worker = static_cast<Worker *>(argument);
  Store *store = worker->store;
  Ring *ring = worker->ring;
  while (true) {
    std::uint32_t fresh = 0;
    std::uint8_t taken[256];
    pthread_mutex_lock(&store->mutex);
    while (store->stopping == 0 && ring->free_count > 0 &&
           take_job(worker, worker->jobs + ring->free[ring->free_count - 1])) {
      taken[fresh++] = ring->free[--ring->free_count];
    }
    const bool idle = fresh == 0 && ring->in_flight == 0;
    if (idle && store->stopping == 0) pthread_cond_wait(&store->work, &store->mutex);
    const bool stop = idle && store->stopping != 0;
    pthread_mutex_unlock(&store->mutex);
    if (stop) return nullptr;
    if (idle) continue;
    for (std::uint32_t i = 0; i < fresh; ++i) {
      before_transfer(store, worker->jobs + taken[i]);
      put(ring, store->device, worker->jobs[taken[i]], taken[i]);
    }
    const std::uint32_t left = enter(ring, fresh);
    take_back(worker, taken + (fresh - left), left);
    reap(worker);
  }
}

#else

bool open_ring(Ring *, std::uint32_t) { return false; }
void close_ring(Ring *) {}
void *ring_worker(void *) { return nullptr; }

#endif

}  // namespace kvsift

#include "workers.h"

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#include "memory.h"

#define MOST_THREADS 256u
#define SPINS 2000u

typedef struct thread_place {
  workers *pool;
  pthread_t thread;
  uint32_t part;
} thread_place;

struct workers {
  uint32_t count; /* the caller's thread included */
  uint32_t started;
  thread_place places[MOST_THREADS];
  pthread_mutex_t lock;
  pthread_cond_t wake, done;
  atomic_uint round;   /* counts pieces of work */
  atomic_uint pending; /* parts still running */
  atomic_bool stopping;
  work_part *part;
  void *context;
};

static inline void pause_a_moment(void) {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

static void await_round(workers *pool, uint32_t seen) {
  for (uint32_t i = 0; i < SPINS; i++) {
    if (atomic_load(&pool->round) != seen) return;
    pause_a_moment();
  }
  pthread_mutex_lock(&pool->lock);
  while (atomic_load(&pool->round) == seen) pthread_cond_wait(&pool->wake, &pool->lock);
  pthread_mutex_unlock(&pool->lock);
}

static void *serve(void *argument) {
  thread_place *place = argument;
  workers *pool = place->pool;
  for (uint32_t seen = 0;; seen++) {
    await_round(pool, seen);
    if (atomic_load(&pool->stopping)) return NULL;
    pool->part(pool->context, place->part, pool->count);
    if (atomic_fetch_sub(&pool->pending, 1) == 1) {
      pthread_mutex_lock(&pool->lock);
      pthread_cond_signal(&pool->done);
      pthread_mutex_unlock(&pool->lock);
    }
  }
}

static void begin_round(workers *pool) {
  atomic_store(&pool->pending, pool->started);
  pthread_mutex_lock(&pool->lock);
  atomic_fetch_add(&pool->round, 1);
  pthread_cond_broadcast(&pool->wake);
  pthread_mutex_unlock(&pool->lock);
}

void workers_run(workers *pool, work_part *part, void *context) {
  if (pool->started == 0) {
    part(context, 0, 1);
    return;
  }
  pool->part = part;
  pool->context = context;
  begin_round(pool);
  part(context, 0, pool->count);
  for (uint32_t i = 0; i < SPINS; i++) {
    if (atomic_load(&pool->pending) == 0) return;
    pause_a_moment();
  }
  pthread_mutex_lock(&pool->lock);
  while (atomic_load(&pool->pending) != 0) pthread_cond_wait(&pool->done, &pool->lock);
  pthread_mutex_unlock(&pool->lock);
}

workers *workers_start(uint32_t threads, failure *why) {
  if (threads < 1 || threads > MOST_THREADS) {
    fail(why, "%u threads asked for; expected 1 to %u", threads, MOST_THREADS);
    return NULL;
  }
  workers *pool = memory_take(1, sizeof *pool);
  if (pool == NULL) {
    fail(why, "no memory for %u threads", threads);
    return NULL;
  }
  pool->count = threads;
  pthread_mutex_init(&pool->lock, NULL);
  pthread_cond_init(&pool->wake, NULL);
  pthread_cond_init(&pool->done, NULL);
  for (uint32_t i = 1; i < threads; i++) {
    thread_place *place = &pool->places[pool->started];
    *place = (thread_place){.pool = pool, .part = i};
    int status = pthread_create(&place->thread, NULL, serve, place);
    if (status != 0) {
      fail(why, "thread %u of %u cannot be started: %s", i + 1, threads, strerror(status));
      workers_stop(pool);
      return NULL;
    }
    pool->started++;
  }
  return pool;
}

void workers_stop(workers *pool) {
  if (pool == NULL) return;
  atomic_store(&pool->stopping, true);
  begin_round(pool);
  for (uint32_t i = 0; i < pool->started; i++) pthread_join(pool->places[i].thread, NULL);
  pthread_cond_destroy(&pool->done);
  pthread_cond_destroy(&pool->wake);
  pthread_mutex_destroy(&pool->lock);
  memory_give(pool);
}

uint32_t workers_count(const workers *pool) { return pool->count; }

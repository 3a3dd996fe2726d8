/* A barrier that spins, as the thread pools of inference engines do between layers: sleeping and waking costs as much as
 * a short step. */
#ifndef KVSIFT_BENCH_SPIN_H
#define KVSIFT_BENCH_SPIN_H

#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>

enum { SPINS_BEFORE_YIELD = 1 << 14 };

typedef struct spin_barrier {
  uint32_t threads;
  _Atomic uint32_t arrived, round;
} spin_barrier;

static inline void spin_barrier_wait(spin_barrier *b) {
  const uint32_t round = atomic_load(&b->round);
  if (atomic_fetch_add(&b->arrived, 1) + 1 == b->threads) {
    atomic_store(&b->arrived, 0);
    atomic_fetch_add(&b->round, 1);
    return;
  }
  for (uint32_t spins = 0; atomic_load(&b->round) == round; ++spins) {
    if (spins >= SPINS_BEFORE_YIELD) sched_yield();
  }
}

#endif

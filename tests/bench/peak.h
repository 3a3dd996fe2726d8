/* The single-precision multiply-add rate of one core, measured with as many independent chains as hide the latency. */
#ifndef KVSIFT_BENCH_PEAK_H
#define KVSIFT_BENCH_PEAK_H

#include <stdint.h>
#include <time.h>

/* Processor time of this thread: what others do on the machine is not counted. */
static inline double bench_seconds(void) {
  struct timespec t;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

enum { PEAK_CHAINS = 12 };

#ifdef __clang__
#define PEAK_FAST noinline
#define PEAK_CONTRACT _Pragma("clang fp contract(fast)")
#else
#define PEAK_FAST noinline, optimize("O3", "fp-contract=fast")
#define PEAK_CONTRACT
#endif
#ifdef __x86_64__
#define PEAK_REGISTER "+x"
#else
#define PEAK_REGISTER "+w"
#endif

/* fast: PEAK_FAST, and the instruction set where it is not the compiler's own. */
#define PEAK_LOOP(name, fast, bytes)                                                    \
  typedef float name##_vector __attribute__((vector_size(bytes)));                      \
  __attribute__(fast) static float name(uint64_t rounds) {                              \
    PEAK_CONTRACT                                                                       \
    name##_vector sum[PEAK_CHAINS], a = {0}, b = {0};                                   \
    for (int i = 0; i < PEAK_CHAINS; ++i) sum[i] = a;                                   \
    for (uint64_t r = 0; r < rounds; ++r) {                                             \
      _Pragma("GCC unroll 12") for (int i = 0; i < PEAK_CHAINS; ++i) sum[i] = sum[i] * a + b;\
      __asm__ volatile("" : PEAK_REGISTER(a), PEAK_REGISTER(b));                        \
    }                                                                                   \
    float total = 0.0f;                                                                 \
    for (int i = 0; i < PEAK_CHAINS; ++i) total += sum[i][0];                           \
    return total;                                                                       \
  }

#if defined(__x86_64__)
PEAK_LOOP(peak_avx512, (PEAK_FAST, target("avx512f,fma")), 64)
PEAK_LOOP(peak_avx2, (PEAK_FAST, target("avx2,fma")), 32)
#else
PEAK_LOOP(peak_plain, (PEAK_FAST), 16)
#endif

/* Floating-point operations a second, two for each multiply-add; the best of a few runs. */
static inline double bench_peak_flops(void) {
  const uint64_t rounds = 4000000;
  double best = 0.0;
  for (int run = 0; run < 5; ++run) {
    const double start = bench_seconds();
#if defined(__x86_64__)
    const int wide = __builtin_cpu_supports("avx512f");
    volatile float sink = wide ? peak_avx512(rounds) : peak_avx2(rounds);
    const double lanes = wide ? 16.0 : 8.0;
#else
    volatile float sink = peak_plain(rounds);
    const double lanes = 4.0;
#endif
    (void)sink;
    const double rate = 2.0 * lanes * PEAK_CHAINS * (double)rounds / (bench_seconds() - start);
    if (rate > best) best = rate;
  }
  return best;
}

#endif

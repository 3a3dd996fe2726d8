/* What the device's benchmark runs on: caches of several layers and sequences, and policies over them. */
#ifndef KVSIFT_TESTS_BENCH_WORLD_H
#define KVSIFT_TESTS_BENCH_WORLD_H

#include <kvsift/kvsift_cuda.h>
#include <stdbool.h>

typedef struct bench_world {
  uint32_t query_heads, kv_heads, dim;
  uint32_t tokens, room, batch, layers; /* room: for the steps too */
  void *keys, *values;                  /* device, [layer][sequence][KV head][room][dim] float16 */
  float *queries, *out;                 /* device, [sequence][query head][dim] */
  float *peaked_max, *peaked_mass, *log_sum_exp; /* device: a step's attention as traces have it, for one sequence */
} bench_world;

/* As many layers as keep the caches from holding what a step reads. */
bench_world *bench_world_new(uint32_t tokens, uint32_t batch, bool tiny);
void bench_world_free(bench_world *w);

typedef struct bench_policies bench_policies;

/* One policy a sequence, that has read `tokens` tokens. */
bench_policies *bench_policies_new(const bench_world *w, const kvsift_policy_config *config);
void bench_policies_free(bench_policies *p);

/* Parts of a step. */
enum { BENCH_KEYS = 1, BENCH_SELECT = 2, BENCH_ATTEND = 4, BENCH_OBSERVE = 8 };

/* Microseconds a layer that a step with these parts takes, as a graph or call by call. */
double bench_time(bench_policies *p, uint32_t parts, uint32_t replays, bool graph);

/* GB/s of a copy within device memory, bytes read and written counted. */
double bench_copy_bandwidth(bool tiny);

#endif

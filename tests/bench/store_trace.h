/* Recorded queries, keys and values (folder of layerNN_{q,k,v}.npy), and policies run over them. */
#ifndef KVSIFT_BENCH_STORE_TRACE_H
#define KVSIFT_BENCH_STORE_TRACE_H

#include <kvsift/kvsift.h>

#include "../npy.h"

enum { TRACE_LAYERS = 3, TRACE_HEADS = 4, TRACE_QUERIES = 8, TRACE_DIM = 64, TRACE_HISTORY = 64, TRACE_SINK = 16,
       TRACE_LOCAL = 64 };

typedef struct trace {
  npy_array q, k, v;
  uint32_t tokens, prompt, steps; /* the prompt ends with TRACE_HISTORY recorded queries, the others are decode steps */
} trace;

typedef struct trace_policy {
  kvsift_method method;
  uint32_t budget, verify, tail;
} trace_policy;

void trace_must(int condition, const char *what);

/* 0, or -1 where it is missing. */
int trace_load(trace *t, const char *folder, int layer);
void trace_free(trace *t);

/* One choice per KV head, no calibration: that would read the whole cache, which is not for one that is offloaded. The
 * prompt has been run. */
kvsift_policy *trace_start(const trace *t, trace_policy choice, void **arena);

kvsift_view trace_rows(const npy_array *a, uint32_t heads, uint32_t row);
kvsift_cache trace_cache(const trace *t, uint32_t tokens);
kvsift_query trace_query(const trace *t, uint32_t step);

#endif

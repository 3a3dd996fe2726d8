/* Decode steps on the device at the geometry of Llama-3.1-8B (32 query heads, 8 KV heads, head dimension 128, float16
 * cache): microseconds a layer for select, attend and observe, beside full attention.
 *
 *     bench_device [--quick] [--json FILE] [--tokens N] [--batch N] [--budget N] [--method NAME] [--once]
 *                  [--seconds N]
 *
 * A step of all layers and sequences is captured as a graph and replayed; what select and attend take is the difference
 * between graphs with and without them. Sequences run side by side, each in a stream of its own. Layers rotate so that no cache holds what a step reads. --quick: tiny shapes,
 * for the emulator, whose times mean nothing. --once: one step without a graph, for a profiler. --seconds: no new shape
 * is begun after so many. */
#define _POSIX_C_SOURCE 199309L
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "bench_world.h"
#include "gpu.h"

typedef struct variant {
  const char *label;
  kvsift_method method;
  uint32_t grouping, tail;
  enum { EXACT, FAST, BF16, TENSOR } form; /* of the predictor; or attention on tensor cores */
} variant;

static const variant kVariants[] = {
    {"full", KVSIFT_METHOD_FULL, KVSIFT_GROUP_QUERY_HEAD, KVSIFT_TAIL_NONE, EXACT},
    {"full, tensor cores", KVSIFT_METHOD_FULL, KVSIFT_GROUP_QUERY_HEAD, KVSIFT_TAIL_NONE, TENSOR},
    {"streaming", KVSIFT_METHOD_STREAMING, KVSIFT_GROUP_MEAN, KVSIFT_TAIL_NONE, EXACT},
    {"streaming, tensor cores", KVSIFT_METHOD_STREAMING, KVSIFT_GROUP_MEAN, KVSIFT_TAIL_NONE, TENSOR},
    {"h2o, blocks, per KV head", KVSIFT_METHOD_H2O, KVSIFT_GROUP_MEAN, KVSIFT_TAIL_NONE, EXACT},
    {"quest, per KV head", KVSIFT_METHOD_QUEST, KVSIFT_GROUP_MEAN, KVSIFT_TAIL_NONE, EXACT},
    {"ema, per KV head", KVSIFT_METHOD_EMA, KVSIFT_GROUP_MEAN, KVSIFT_TAIL_NONE, EXACT},
    {"page-stats, per KV head", KVSIFT_METHOD_PAGE_STATS, KVSIFT_GROUP_MEAN, KVSIFT_TAIL_NONE, EXACT},
    {"page-stats + moments, per KV head", KVSIFT_METHOD_PAGE_STATS, KVSIFT_GROUP_MEAN, KVSIFT_TAIL_MOMENTS, EXACT},
    {"page-stats + moments, per KV head, tensor cores", KVSIFT_METHOD_PAGE_STATS, KVSIFT_GROUP_MEAN, KVSIFT_TAIL_MOMENTS, TENSOR},
    {"page-stats + moments, per query head, tensor cores", KVSIFT_METHOD_PAGE_STATS, KVSIFT_GROUP_QUERY_HEAD, KVSIFT_TAIL_MOMENTS,
     TENSOR},
    {"page-stats + moments, per query head", KVSIFT_METHOD_PAGE_STATS, KVSIFT_GROUP_QUERY_HEAD, KVSIFT_TAIL_MOMENTS, EXACT},
    {"page-stats + coreset, per KV head", KVSIFT_METHOD_PAGE_STATS, KVSIFT_GROUP_MEAN, KVSIFT_TAIL_BALANCE, EXACT},
    {"balance", KVSIFT_METHOD_BALANCE, KVSIFT_GROUP_MEAN, KVSIFT_TAIL_BALANCE, EXACT},
    {"attention-predictor, per KV head", KVSIFT_METHOD_ATTENTION_PREDICTOR, KVSIFT_GROUP_MEAN, KVSIFT_TAIL_NONE, EXACT},
    {"attention-predictor-fast, per KV head", KVSIFT_METHOD_ATTENTION_PREDICTOR, KVSIFT_GROUP_MEAN, KVSIFT_TAIL_NONE,
     FAST},
    {"attention-predictor-bf16, per KV head", KVSIFT_METHOD_ATTENTION_PREDICTOR, KVSIFT_GROUP_MEAN, KVSIFT_TAIL_NONE,
     BF16},
    {"attention-predictor-bf16, per query head", KVSIFT_METHOD_ATTENTION_PREDICTOR, KVSIFT_GROUP_QUERY_HEAD,
     KVSIFT_TAIL_NONE, BF16},
};
enum { VARIANTS = sizeof kVariants / sizeof *kVariants };

typedef struct request {
  bool quick, once;
  uint32_t tokens, batch, budget; /* 0: the built-in list */
  uint32_t seconds;               /* 0: no end */
  const char *method, *json;
} request;

static kvsift_policy_config config_of(const variant *v, const bench_world *w, uint32_t budget) {
  kvsift_policy_config c = {.struct_size = sizeof c};
  if (kvsift_policy_config_init(&c, v->method) != KVSIFT_OK) exit(fprintf(stderr, "no method %s\n", v->label));
  c.layers = w->layers, c.query_heads = w->query_heads, c.kv_heads = w->kv_heads, c.head_dim = w->dim;
  c.max_tokens = w->room, c.budget_tokens = budget, c.budget_share = 0, c.target_mass = 0;
  c.block_tokens = c.page_tokens = 16, c.dense_layers = 0, c.dense_tokens = KVSIFT_DENSE_OFF;
  c.grouping = v->grouping, c.tail = v->tail, c.verify_blocks = 0;
  if (v->method == KVSIFT_METHOD_FULL) c.budget_tokens = 0;
  if (v->form == TENSOR) c.tensor_attention = 1;
  if (v->form == BF16) c.predictor_arithmetic = KVSIFT_BF16;
  if (v->form == FAST) c.history_type = KVSIFT_I8, c.predictor_arithmetic = KVSIFT_I8, c.history_floor = 1.0f / 256;
  return c;
}

typedef struct figures {
  double select, attend, observe, step; /* microseconds a layer, all sequences */
} figures;

static figures measure(const bench_world *w, const kvsift_policy_config *c, uint32_t replays, bool once) {
  const uint32_t parts[] = {BENCH_KEYS | BENCH_OBSERVE | BENCH_SELECT | BENCH_ATTEND,
                            BENCH_KEYS | BENCH_OBSERVE | BENCH_SELECT, BENCH_KEYS | BENCH_OBSERVE, BENCH_KEYS};
  double us[4] = {0};
  bench_policies *p = bench_policies_new(w, c);
  for (uint32_t i = 0; i < (once ? 1 : 4); ++i) us[i] = bench_time(p, parts[i], replays, !once);
  bench_policies_free(p);
  return (figures){us[1] - us[2], us[0] - us[1], us[2] - us[3], us[0]};
}

typedef struct output {
  FILE *json;
  bool first;
  double copy; /* GB/s of device memory */
} output;

static void print(output *to, const bench_world *w, const variant *v, uint32_t budget, figures f, double full) {
  const double bytes = 2.0 * w->kv_heads * w->dim * 2 * w->tokens * w->batch;
  printf("%8u tokens, batch %2u, budget %5u  %-50s select %8.2f  attend %8.2f  observe %7.2f  step %8.2f us", w->tokens,
         w->batch, budget, v->label, f.select, f.attend, f.observe, f.step);
  if (full > 0) printf("  %5.2fx", full / f.step);
  printf("\n");
  if (to->json == NULL) return;
  fprintf(to->json, "%s\n    {\"method\": \"%s\", \"tokens\": %u, \"batch\": %u, \"budget\": %u, \"select_us\": %.3f, "
          "\"attend_us\": %.3f, \"observe_us\": %.3f, \"step_us\": %.3f, \"speedup_of_step_over_full\": %.3f",
          to->first ? "" : ",", v->label, w->tokens, w->batch, budget, f.select, f.attend, f.observe, f.step,
          full > 0 ? full / f.step : 1.0);
  if (v->method == KVSIFT_METHOD_FULL && f.attend > 0) {
    const double rate = bytes / f.attend / 1e3;
    fprintf(to->json, ", \"cache_gb_per_s\": %.1f, \"share_of_copy\": %.3f", rate, rate / to->copy);
  }
  fprintf(to->json, "}");
  fflush(to->json);
  to->first = false;
}

/* One shape: full attention, then each method with each budget. */
static void run_shape(const request *r, output *to, uint32_t tokens, uint32_t batch, const uint32_t *budgets) {
  const uint32_t replays = r->quick ? 1 : 20;
  bench_world *w = bench_world_new(tokens, batch, r->quick);
  double full = 0;
  for (uint32_t i = 0; i < VARIANTS; ++i) {
    const variant *v = &kVariants[i];
    const bool wanted = r->method == NULL || strncmp(v->label, r->method, strlen(r->method)) == 0;
    if (!wanted && (i > 0 || r->once)) continue;
    for (const uint32_t *budget = budgets; *budget != 0; ++budget) {
      if (*budget >= tokens && v->method != KVSIFT_METHOD_FULL) continue;
      const kvsift_policy_config c = config_of(v, w, *budget);
      const figures f = measure(w, &c, replays, r->once);
      print(to, w, v, v->method == KVSIFT_METHOD_FULL ? 0 : *budget, f, full);
      if (i == 0) full = f.step;
      if (v->method == KVSIFT_METHOD_FULL) break; /* it has no budget */
    }
  }
  bench_world_free(w);
}

static double seconds_now(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* All shapes, those first that matter most. */
static void run_list(const request *r, output *to) {
  static const uint32_t sizes[] = {32768, 131072, 8192, 4096, 2048, 1024, 16384, 65536, 1048576, 262144, 524288};
  static const uint32_t batches[] = {1, 4, 16};
  const uint32_t both[] = {1024, 2048, 0}, one[] = {1024, 0}, asked[] = {r->budget, 0};
  const double end = seconds_now() + r->seconds;
  for (uint32_t b = 0; b < sizeof batches / sizeof *batches; ++b) {
    for (uint32_t i = 0; i < sizeof sizes / sizeof *sizes; ++i) {
      if (batches[b] > 1 && (sizes[i] < 8192 || (uint64_t)batches[b] * sizes[i] > 4u << 20)) continue;
      if (r->seconds != 0 && seconds_now() > end) {
        printf("left out: %u tokens, batch %u: %u seconds are over\n", sizes[i], batches[b], r->seconds);
        continue;
      }
      const bool wide = batches[b] == 1 && (sizes[i] == 32768 || sizes[i] == 131072);
      run_shape(r, to, sizes[i], batches[b], r->budget != 0 ? asked : wide ? both : one);
    }
  }
}

static void run_all(const request *r, output *to) {
  const uint32_t both[] = {1024, 2048, 0}, asked[] = {r->budget, 0}, tiny[] = {160, 0};
  if (r->quick) run_shape(r, to, 200, 2, tiny);
  else if (r->tokens == 0) run_list(r, to);
  else run_shape(r, to, r->tokens, r->batch != 0 ? r->batch : 1, r->budget != 0 ? asked : both);
}

static bool read_arguments(request *r, int argc, char **argv) {
  for (int i = 1; i < argc; ++i) {
    const char *value = i + 1 < argc ? argv[i + 1] : NULL;
    if (strcmp(argv[i], "--quick") == 0) r->quick = true;
    else if (strcmp(argv[i], "--once") == 0) r->once = true;
    else if (value == NULL) return false;
    else if (strcmp(argv[i], "--json") == 0) r->json = value, ++i;
    else if (strcmp(argv[i], "--method") == 0) r->method = value, ++i;
    else if (strcmp(argv[i], "--tokens") == 0) r->tokens = (uint32_t)strtoul(value, NULL, 10), ++i;
    else if (strcmp(argv[i], "--seconds") == 0) r->seconds = (uint32_t)strtoul(value, NULL, 10), ++i;
    else if (strcmp(argv[i], "--batch") == 0) r->batch = (uint32_t)strtoul(value, NULL, 10), ++i;
    else if (strcmp(argv[i], "--budget") == 0) r->budget = (uint32_t)strtoul(value, NULL, 10), ++i;
    else return false;
  }
  return true;
}

int main(int argc, char **argv) {
  request r = {0};
  if (!read_arguments(&r, argc, argv)) {
    fprintf(
        stderr,
        "usage: bench_device [--quick] [--json FILE] [--tokens N] [--batch N] [--budget N] [--method NAME] [--once] "
        "[--seconds N]\n");
    return 2;
  }
  if (!gpu_open()) return 77;
  output to = {r.json != NULL ? fopen(r.json, "w") : NULL, true, 0};
  if (r.json != NULL && to.json == NULL) return fprintf(stderr, "%s cannot be written\n", r.json), 1;
  const double copy = to.copy = bench_copy_bandwidth(r.quick);
  printf("device memory, copying: %.0f GB/s read and written together\n", copy);
  if (to.json != NULL) {
    fprintf(to.json, "{\n  \"device\": \"%s\",\n  \"emulated\": %s,\n  \"copy_gb_per_s\": %.1f,\n  \"runs\": [",
            gpu_name(), gpu_is_mock() ? "true" : "false", copy);
  }
  run_all(&r, &to);
  if (to.json != NULL) {
    fprintf(to.json, "\n  ]\n}\n");
    fclose(to.json);
  }
  return 0;
}

#include "store_plan.h"

#include <stdlib.h>
#include <string.h>

#include "random.h"
#include "store_trace.h"

enum { MEMORY = 12 };

static void allocate(plan *p) {
  const size_t lists = (size_t)p->steps * p->layers * PLAN_HEADS;
  p->all = (plan_list *)calloc(lists, sizeof(plan_list));
  p->early = (plan_list *)calloc(lists, sizeof(plan_list));
  trace_must(p->all != NULL && p->early != NULL, "no memory for the plan");
}

void plan_free(plan *p) {
  free(p->all);
  free(p->early);
}

static int has(const plan_list *list, uint32_t block) {
  for (uint32_t i = 0; i < list->count; ++i) {
    if (list->blocks[i] == block) return 1;
  }
  return 0;
}

static int ascending(const void *a, const void *b) { return *(const uint16_t *)a - *(const uint16_t *)b; }

static void sort_list(plan_list *list) { qsort(list->blocks, list->count, sizeof *list->blocks, ascending); }

static void add(plan_list *list, uint32_t block) {
  trace_must(list->count < PLAN_MOST, "a list of the plan is full");
  list->blocks[list->count++] = (uint16_t)block;
}

/* Blocks between the sink's and the local ones, which are pinned anyway. */
static uint32_t free_block(test_random *random, uint32_t tokens) {
  return 1 + random_below(random, (tokens - PLAN_LOCAL) / PLAN_BLOCK - 1);
}

static void next_list(plan *p, test_random *random, uint32_t step, uint32_t layer, uint32_t head, uint32_t count,
                      plan_rates rates) {
  plan_list *list = plan_at(p, p->all, step, layer, head);
  if (step > 0) {
    const plan_list *last = plan_at(p, p->all, step - 1, layer, head);
    for (uint32_t i = 0; i < last->count; ++i) {
      if (random_unit(random) < (float)rates.overlap) add(list, last->blocks[i]);
    }
  }
  while (list->count < count) {
    uint32_t block = free_block(random, p->prompt);
    if (step > 1 && random_unit(random) < (float)rates.recent) {
      const uint32_t back = 2 + random_below(random, step < MEMORY ? step - 1 : MEMORY - 1);
      const plan_list *past = plan_at(p, p->all, step - back, layer, head);
      block = past->blocks[random_below(random, past->count)];
    }
    if (!has(list, block)) add(list, block);
  }
  plan_list *early = plan_at(p, p->early, step, layer, head);
  for (uint32_t i = 0; i < list->count; ++i) {
    if (random_unit(random) < (float)rates.known) add(early, list->blocks[i]);
  }
  sort_list(list);
  sort_list(early);
}

void plan_make_synthetic(plan *p, uint32_t layers, uint32_t steps, uint32_t prompt, uint32_t budget, plan_rates rates) {
  test_random random = {12345};
  *p = (plan){"synthetic", layers, steps, prompt, NULL, NULL};
  allocate(p);
  const uint32_t count = (budget - PLAN_SINK - PLAN_LOCAL) / PLAN_BLOCK;
  for (uint32_t s = 0; s < steps; ++s) {
    for (uint32_t l = 0; l < layers; ++l) {
      for (uint32_t h = 0; h < PLAN_HEADS; ++h) next_list(p, &random, s, l, h, count, rates);
    }
  }
}

typedef struct source {
  trace recorded;
  kvsift_policy *policy;
  void *arena;
} source;

static void ok(kvsift_policy *policy, kvsift_status status) {
  trace_must(status == KVSIFT_OK, kvsift_last_error(policy));
}

/* One decode step; leaves what was chosen in `selection`. */
static void run_step(const trace *t, kvsift_policy *policy, uint32_t step, kvsift_selection *selection) {
  static float out[TRACE_QUERIES][TRACE_DIM], max[TRACE_QUERIES][512], mass[TRACE_QUERIES][512], sum[TRACE_QUERIES];
  const kvsift_query query = trace_query(t, step);
  const kvsift_cache cache = trace_cache(t, query.tokens);
  const kvsift_view key = trace_rows(&t->k, TRACE_HEADS, query.tokens - 1);
  const kvsift_view value = trace_rows(&t->v, TRACE_HEADS, query.tokens - 1);
  kvsift_observation seen = {.struct_size = sizeof seen, .tokens = query.tokens, .block_stride = 512,
                             .block_max = max[0], .block_mass = mass[0], .log_sum_exp = sum};
  ok(policy, kvsift_observe_keys(policy, 0, NULL, query.tokens - 1, 1, &key, &value));
  ok(policy, kvsift_select_blocks(policy, 0, &query, selection));
  ok(policy, kvsift_attend(policy, 0, &query, &cache, selection, out[0], &seen));
  ok(policy, kvsift_observe_attention(policy, 0, NULL, &seen));
  ok(policy, kvsift_advance(policy, 1));
}

static int was_missed(const kvsift_selection *s, uint32_t list, uint32_t block) {
  for (uint32_t i = 0; s->missed != NULL && i < s->missed_counts[list]; ++i) {
    if (s->missed[(size_t)list * s->missed_stride + i] == block) return 1;
  }
  return 0;
}

/* A recorded block stands for `parts` blocks of the longer context, of which half are taken, always the same ones. */
static void expand(uint32_t block, uint32_t parts, plan_list *out) {
  test_random random = {block};
  uint32_t taken = 0;
  const uint32_t wanted = (parts + 1) / 2;
  for (uint32_t j = 0; j < parts && taken < wanted; ++j) {
    if (random_below(&random, parts - j) >= wanted - taken) continue;
    add(out, block * parts + j);
    ++taken;
  }
}

static void take(const kvsift_selection *s, uint32_t list, uint32_t parts, plan_list *all, plan_list *early, int known) {
  const uint32_t end = (s->tokens - PLAN_LOCAL) / PLAN_BLOCK;
  for (uint32_t i = 0; i < s->block_counts[list]; ++i) {
    const uint32_t block = s->blocks[(size_t)list * s->block_stride + i];
    if (block == 0 || block >= end) continue;
    expand(block, parts, all);
    if (known && !was_missed(s, list, block)) expand(block, parts, early);
  }
}

/* Head h of layer l follows a KV head of one of the recorded layers. */
static void trace_step(plan *p, source *sources, uint32_t step, uint32_t parts, int known) {
  kvsift_selection chosen[TRACE_LAYERS];
  for (uint32_t i = 0; i < TRACE_LAYERS; ++i) {
    chosen[i] = (kvsift_selection){.struct_size = sizeof(kvsift_selection)};
    run_step(&sources[i].recorded, sources[i].policy, step, &chosen[i]);
  }
  for (uint32_t l = 0; l < p->layers; ++l) {
    for (uint32_t h = 0; h < PLAN_HEADS; ++h) {
      take(&chosen[(l + h / TRACE_HEADS) % TRACE_LAYERS], h % TRACE_HEADS, parts, plan_at(p, p->all, step, l, h),
           plan_at(p, p->early, step, l, h), known);
    }
  }
}

int plan_make_traced(plan *p, const char *folder, uint32_t layers, uint32_t steps, uint32_t prompt, plan_choice choice) {
  static const int recorded[TRACE_LAYERS] = {3, 6, 9};
  static const trace_policy policies[] = {{KVSIFT_METHOD_ATTENTION_PREDICTOR, 256, 0, KVSIFT_TAIL_NONE},
                                          {KVSIFT_METHOD_ATTENTION_PREDICTOR, 192, 4, KVSIFT_TAIL_NONE},
                                          {KVSIFT_METHOD_PAGE_STATS, 256, 0, KVSIFT_TAIL_NONE}};
  static const char *const names[] = {"traces: predictor", "traces: predictor and late check", "traces: page statistics"};
  source sources[TRACE_LAYERS];
  memset(sources, 0, sizeof sources);
  for (uint32_t i = 0; i < TRACE_LAYERS; ++i) {
    if (trace_load(&sources[i].recorded, folder, recorded[i]) != 0) return -1;
    sources[i].policy = trace_start(&sources[i].recorded, policies[choice], &sources[i].arena);
  }
  const trace *t = &sources[0].recorded;
  const uint32_t parts = prompt > t->prompt ? prompt / t->prompt : 1;
  *p = (plan){names[choice], layers, steps < t->steps ? steps : t->steps, prompt > t->prompt ? prompt : t->prompt, NULL, NULL};
  allocate(p);
  for (uint32_t s = 0; s < p->steps; ++s) trace_step(p, sources, s, parts, choice != PLAN_PAGE_STATS);
  for (uint32_t i = 0; i < TRACE_LAYERS; ++i) {
    free(sources[i].arena);
    trace_free(&sources[i].recorded);
  }
  return 0;
}

plan_figures plan_measure(const plan *p) {
  double blocks = 0, kept = 0, known = 0, lists = 0;
  for (uint32_t s = 16; s < p->steps; ++s) {
    for (uint32_t l = 0; l < p->layers; ++l) {
      for (uint32_t h = 0; h < PLAN_HEADS; ++h) {
        const plan_list *list = plan_at(p, p->all, s, l, h), *last = plan_at(p, p->all, s - 1, l, h);
        const plan_list *early = plan_at(p, p->early, s, l, h);
        lists += 1;
        blocks += list->count;
        for (uint32_t i = 0; i < list->count; ++i) kept += has(last, list->blocks[i]);
        for (uint32_t i = 0; i < list->count; ++i) known += has(early, list->blocks[i]);
      }
    }
  }
  return (plan_figures){blocks / lists, kept / blocks, known / blocks};
}

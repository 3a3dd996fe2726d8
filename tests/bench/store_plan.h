/* What a sequence attends to, step by step, at the geometry of Llama-3.1-8B, and what of it is known a token early. */
#ifndef KVSIFT_BENCH_STORE_PLAN_H
#define KVSIFT_BENCH_STORE_PLAN_H

#include <stdint.h>

enum { PLAN_HEADS = 8, PLAN_BLOCK = 16, PLAN_SINK = 16, PLAN_LOCAL = 64, PLAN_MOST = 256 };

typedef struct plan_list {
  uint32_t count;
  uint16_t blocks[PLAN_MOST]; /* ascending; sink and local blocks are not among them */
} plan_list;

typedef struct plan {
  const char *source;
  uint32_t layers, steps, prompt; /* step s adds token prompt + s */
  plan_list *all, *early;         /* [steps][layers][PLAN_HEADS]; early may name blocks that are not attended to */
} plan;

static inline plan_list *plan_at(const plan *p, plan_list *lists, uint32_t step, uint32_t layer, uint32_t head) {
  return lists + ((uint64_t)step * p->layers + layer) * PLAN_HEADS + head;
}

/* Blocks that change as measured on recorded queries: `overlap` of a step's are the last step's, `recent` of the new ones
 * come from the twelve steps before, the rest from anywhere; `known` of a step's are known a token early. */
typedef struct plan_rates {
  double overlap, recent, known;
} plan_rates;
void plan_make_synthetic(plan *p, uint32_t layers, uint32_t steps, uint32_t prompt, uint32_t budget, plan_rates rates);

/* The library's own choices on recorded traces (folder of layerNN_{q,k,v}.npy), 256 of 2,880 tokens; for a longer prompt each
 * recorded block stands for several. Known early: all of AttentionPredictor's choice; all but 4 blocks, which page
 * statistics name when the query is there; nothing where page statistics choose. 0, or -1 where the traces are missing. */
typedef enum plan_choice { PLAN_PREDICTOR, PLAN_LATE_CHECK, PLAN_PAGE_STATS, PLAN_CHOICES } plan_choice;
int plan_make_traced(plan *p, const char *folder, uint32_t layers, uint32_t steps, uint32_t prompt, plan_choice choice);

void plan_free(plan *p);

/* Means over lists after the first 16 steps: blocks of a list, share that the last step had, share known early. */
typedef struct plan_figures {
  double blocks, overlap, known;
} plan_figures;
plan_figures plan_measure(const plan *p);

#endif

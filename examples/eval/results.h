/* Sums over samples, and the file that keeps them while a run is under way. */
#ifndef EVAL_RESULTS_H
#define EVAL_RESULTS_H

#include "contestant.h"
#include "measure.h"
#include "picture.h"
#include "tasks.h"

/* Answers to one task at one length and depth. */
typedef struct cell {
  uint64_t asked, right;
} cell;

/* Stretches of text; squares are of the means of single stretches. */
typedef struct text_sums {
  uint64_t windows, tokens, agreed;
  double divergence, nats, bytes;
  double agreed_mean, agreed_square, divergence_mean, divergence_square, bits_mean, bits_square;
} text_sums;

typedef struct results {
  uint32_t contestants, lengths, layers, query_heads;
  cell *cells;     /* [tasks][lengths][DEPTHS][contestants] */
  text_sums *text; /* [contestants] */
  quality *heads;  /* [contestants][layers][query_heads] */
  picture *drawn;  /* of the first stretch; not owned */
  uint32_t done;   /* samples counted */
  FILE *part;
} results;

typedef struct text_outcome {
  uint64_t tokens, agreed;
  double divergence, nats, bytes; /* sums over the stretch */
} text_outcome;

/* Opens PATH.part; what an earlier run with the same `key` has counted is taken over. */
bool results_open(results *out, const char *path, const char *key, const contest *all,
                  const model *m, uint32_t lengths, picture *drawn, failure *why);
void results_release(results *out);

/* Each belongs to the sample under way, which counts from results_sample_done on. */
void results_add_answers(results *to, uint32_t task, uint32_t length, uint32_t depth,
                         uint32_t contestant, cell more);
void results_add_text(results *to, uint32_t contestant, const text_outcome *more);
void results_add_quality(results *to, uint32_t contestant, const measure *more);
void results_keep_picture(results *to);
bool results_sample_done(results *to, failure *why);

cell *results_cell(const results *of, uint32_t task, uint32_t length, uint32_t depth,
                   uint32_t contestant);

#endif

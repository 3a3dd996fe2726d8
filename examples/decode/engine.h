/* The forward pass: tokens in, logits of the last one out. Attention itself is left to whoever is
 * plugged in. */
#ifndef DECODE_ENGINE_H
#define DECODE_ENGINE_H

#include "cache.h"
#include "multiply.h"
#include "workers.h"

/* Queries of the last `rows` tokens of the cache, whose keys and values are already in it. */
typedef struct attention_input {
  const model *model;
  const cache *cache;
  workers *pool;
  uint32_t layer;
  uint32_t rows;
  uint32_t tokens;      /* cache length that the last row sees, itself included */
  bool prompt;          /* part of a prompt, or a decode step (one row) */
  uint32_t prompt_left; /* tokens of the prompt that are still to come */
  const float *queries; /* [rows][query_heads][head_dim], after RoPE */
} attention_input;

typedef struct attention {
  void *self;
  bool (*attend)(void *self, const attention_input *input, float *out, failure *why);
  bool (*advance)(void *self, uint32_t tokens, failure *why); /* after the last layer */
} attention;

typedef struct engine {
  const model *model;
  workers *pool;
  attention attention;
  multiplier multiplier; /* none after engine_create: products are the pool's work */
  cache cache;
  float *state, *normed, *queries, *keys, *values, *mixed, *gate, *up, *scratch;
  float *logits; /* [vocabulary], of the last token */
} engine;

#define ENGINE_BATCH 128u /* tokens a forward pass takes at once */

bool engine_create(engine *out, const model *m, workers *pool, kvsift_type cache_type,
                   uint32_t capacity, failure *why);
void engine_release(engine *out);

/* Adds the next part of a prompt, `left` tokens of which are still to come. Methods learn from a
 * prompt's last rows, so the last part should be a whole batch: engine_first_batch tells how long
 * the first is to be for that. */
bool engine_read(engine *e, const uint32_t *tokens, uint32_t count, uint32_t left, failure *why);
uint32_t engine_first_batch(uint32_t prompt_tokens);

/* Adds one token: a decode step. */
bool engine_step(engine *e, uint32_t token, failure *why);

/* Forgets all tokens but the first `tokens`; what is plugged in must be told by the caller. */
void engine_truncate(engine *e, uint32_t tokens);

#endif

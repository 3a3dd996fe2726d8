/* The forward pass: tokens in, logits of the last one out. Attention itself is left to whoever is plugged in. */
#ifndef DECODE_ENGINE_H
#define DECODE_ENGINE_H

#include "cache.h"
#include "workers.h"

/* Queries of the last `rows` tokens of the cache, whose keys and values are already in it. */
typedef struct attention_input {
  const model *model;
  const cache *cache;
  workers *pool;
  uint32_t layer;
  uint32_t rows;
  uint32_t tokens;       /* cache length that the last row sees, itself included */
  bool prompt;           /* part of a prompt, or a decode step (one row) */
  const float *queries;  /* [rows][query_heads][head_dim], after RoPE */
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
  cache cache;
  float *state, *normed, *queries, *keys, *values, *mixed, *gate, *up, *scratch;
  float *logits;         /* [vocabulary], of the last token */
} engine;

#define ENGINE_BATCH 128u /* tokens a forward pass takes at once */

bool engine_create(engine *out, const model *m, workers *pool, kvsift_type cache_type,
                   uint32_t capacity, failure *why);
void engine_release(engine *out);

/* Adds up to ENGINE_BATCH tokens to the cache. Prompt tokens are told from decode steps because methods learn from
 * them differently. */
bool engine_forward(engine *e, const uint32_t *tokens, uint32_t count, bool prompt, failure *why);

/* Forgets all tokens but the first `tokens`; what is plugged in must be told by the caller. */
void engine_truncate(engine *e, uint32_t tokens);

#endif

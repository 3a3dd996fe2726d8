/* Causal attention written plainly: what the library's results are held against. */
#ifndef DECODE_PLAIN_ATTENTION_H
#define DECODE_PLAIN_ATTENTION_H

#include "engine.h"

attention plain_attention(void);

/* Softmax weights of one query over the first `tokens` of the cache. */
void plain_weights(const cache *from, uint32_t layer, uint32_t kv_head, const float *query,
                   uint32_t tokens, float *weights);

/* out = weights . values */
void plain_mix(const cache *from, uint32_t layer, uint32_t kv_head, const float *weights,
               uint32_t tokens, float *out);

#endif

/* A kvsift policy at work in the engine: the calls an engine makes for a prompt, for a decode step
 * and after each. */
#ifndef DECODE_SIFT_H
#define DECODE_SIFT_H

#include <kvsift/kvsift.h>

#include "engine.h"

/* Told of each layer of a decode step. */
typedef struct sift_listener {
  void *self;
  void (*heard)(void *self, const attention_input *input, const kvsift_selection *selection,
                const float *out);
} sift_listener;

typedef struct sift {
  kvsift_policy_config config;
  kvsift_policy *policy;
  void *arena;
  uint64_t arena_bytes;
  kvsift_policy_info info;
  sift_listener listener;
  uint64_t keys_read, values_read; /* rows of the cache that decode steps read */
} sift;

/* config.error need not be set; geometry and max_tokens must be. */
bool sift_create(sift *out, const kvsift_policy_config *config, failure *why);
bool sift_fork(const sift *from, sift *out, failure *why);
void sift_release(sift *out);

/* Sets the geometry of `m` and room for `capacity` tokens. */
void sift_set_geometry(kvsift_policy_config *config, const model *m, uint32_t capacity);

/* A part of the prompt. Where the output is not wanted, `out` is only room for the rows that the
 * method learns from. */
bool sift_prompt(sift *with, const attention_input *input, float *out, bool wanted, failure *why);
bool sift_decode(sift *with, const attention_input *input, float *out, failure *why);
bool sift_advance(sift *with, uint32_t tokens, failure *why);

/* Several policies that see one prompt: the engine computes it once. Decode steps are the first
 * one's alone. */
typedef struct sift_set {
  sift **list;
  uint32_t count;
  float *unused; /* where the others' prompt output goes */
} sift_set;

attention sift_attention(sift_set *set);

#endif

/* Drives a policy over a toy model as an engine would, and keeps a digest of all its answers. */
#ifndef KVSIFT_TESTS_SESSION_H
#define KVSIFT_TESTS_SESSION_H

#include <stdbool.h>
#include <stdint.h>

#include "kvsift/kvsift.h"
#include "toy.h"

/* What one layer of a decode step gave; hold until the next layer. */
typedef struct session_answer {
  uint32_t layer, tokens;
  const kvsift_selection *selection;
  const float *out;                      /* [query heads][dim] */
  const kvsift_observation *observation; /* null where steps are learnt from at once */
} session_answer;

typedef struct session session;
struct session {
  const toy *toy;
  kvsift_policy_config config;
  kvsift_policy *policy;
  void *arena;
  uint64_t arena_bytes;
  uint32_t tokens, needs; /* of the method */
  uint64_t digest;      /* of every selection, output and observation */
  bool one_head_a_time; /* calls name one KV head each */
  bool keys_given;      /* the next step's keys were observed already */
  bool at_once;         /* steps go through kvsift_decode_attend: no observations, neither in the digest nor to look at */
  bool blind;           /* observations do not enter the digest */
  /* Called after each layer of a decode step; may be null. */
  void (*look)(session *s, const session_answer *answer);
  /* Called after each layer of a prompt chunk, whose output is in prompt_out; may be null. */
  void (*look_prompt)(session *s, uint32_t layer, uint32_t tokens);
  void *context;
  float *out, *prompt_out, *block_max, *block_mass, *log_sum_exp;
  uint32_t block_stride;
};

/* A fresh policy in an arena of exactly its size before a guard page. Null where create answers UNSUPPORTED; fails the
 * test on any other status. */
session *session_new(const kvsift_policy_config *config, const toy *t);
void session_free(session *s);

/* `tokens` more prompt tokens in one chunk. */
void session_prompt(session *s, uint32_t tokens);
void session_steps(session *s, uint32_t steps);
void session_truncate(session *s, uint32_t tokens);
/* A copy with its own arena and the digest of `s`. */
session *session_fork(const session *s);
/* The state of `s` saved and loaded into a new policy. */
session *session_reload(const session *s);

void session_keys(session *s, uint32_t layer, uint32_t tokens);
/* Whether a step's observation has block_max: every other has not, where the method asks for block_mass. */
bool session_wants_max(uint32_t needs, uint32_t tokens);
kvsift_query session_query(const session *s, uint32_t layer, uint32_t tokens, uint32_t rows);
void session_add(session *s, const void *data, uint64_t bytes); /* to the digest */

#endif

#include "guarded.h" /* first: asks libc for mmap */
#include "session.h"

#include <stdlib.h>
#include <string.h>

#include "cases.h"

void session_add(session *s, const void *data, uint64_t bytes) {
  const uint8_t *p = data;
  uint64_t h = s->digest;
  for (; bytes >= 4; bytes -= 4, p += 4) {
    uint32_t word;
    memcpy(&word, p, sizeof word);
    h = (h ^ word) * 0x9e3779b97f4a7c15u;
    h ^= h >> 29;
  }
  for (; bytes > 0; --bytes, ++p) h = (h ^ *p) * 0x100000001b3u;
  s->digest = h;
}

static void make_room(session *s) {
  const kvsift_policy_config *c = &s->config;
  s->block_stride = (c->max_tokens + c->block_tokens - 1) / c->block_tokens;
  const size_t heads = c->query_heads;
  s->out = calloc(heads * c->head_dim, sizeof(float));
  s->prompt_out = calloc(heads * c->head_dim * c->max_tokens, sizeof(float));
  s->block_max = calloc(heads * s->block_stride, sizeof(float));
  s->block_mass = calloc(heads * s->block_stride, sizeof(float));
  s->log_sum_exp = calloc(heads, sizeof(float));
}

session *session_new(const kvsift_policy_config *config, const toy *t) {
  session *s = calloc(1, sizeof *s);
  kvsift_error error = {0};
  s->toy = t;
  s->config = *config;
  s->config.error = &error;
  kvsift_status status = kvsift_policy_arena_size(&s->config, &s->arena_bytes, NULL);
  if (status == KVSIFT_UNSUPPORTED) {
    free(s);
    return NULL;
  }
  expect(status == KVSIFT_OK, "arena_size: %s", error.message);
  s->arena = guarded_new(s->arena_bytes);
  memset(s->arena, 0xa5, s->arena_bytes);
  status = kvsift_policy_create(&s->config, s->arena, s->arena_bytes, &s->policy);
  expect(status == KVSIFT_OK, "create: %s", error.message);
  s->config.error = NULL;
  kvsift_policy_info info = {.struct_size = sizeof info};
  must(s->policy, kvsift_policy_get_info(s->policy, &info));
  s->needs = info.needs;
  make_room(s);
  return s;
}

void session_free(session *s) {
  if (s == NULL) return;
  must(s->policy, kvsift_policy_destroy(s->policy));
  guarded_free(s->arena, s->arena_bytes);
  free(s->out);
  free(s->prompt_out);
  free(s->block_max);
  free(s->block_mass);
  free(s->log_sum_exp);
  free(s);
}

kvsift_query session_query(const session *s, uint32_t layer, uint32_t tokens, uint32_t rows) {
  kvsift_query q = {.struct_size = sizeof q, .tokens = tokens, .rows = rows};
  q.view = toy_view(s->toy, TOY_QUERY, layer, tokens - rows);
  return q;
}

/* Steps through the head ranges: false when all were done. */
static bool next_heads(const session *s, kvsift_query *q, bool *begun) {
  if (*begun) {
    q->first_kv_head += q->kv_heads;
    return s->one_head_a_time && q->first_kv_head < s->config.kv_heads;
  }
  *begun = true;
  q->first_kv_head = 0;
  q->kv_heads = s->one_head_a_time ? 1 : 0;
  return true;
}

void session_keys(session *s, uint32_t layer, uint32_t tokens) {
  kvsift_query heads = {.struct_size = sizeof heads};
  const kvsift_view keys = toy_view(s->toy, TOY_KEY, layer, s->tokens);
  const kvsift_view values = toy_view(s->toy, TOY_VALUE, layer, s->tokens);
  for (bool begun = false; next_heads(s, &heads, &begun);) {
    must(s->policy, kvsift_observe_keys(s->policy, layer, &heads, s->tokens, tokens, &keys, &values));
  }
}

void session_prompt(session *s, uint32_t tokens) {
  const uint32_t end = s->tokens + tokens;
  const uint64_t bytes = 4ull * tokens * s->config.query_heads * s->config.head_dim;
  for (uint32_t layer = 0; layer < s->config.layers && tokens > 0; ++layer) {
    session_keys(s, layer, tokens);
    kvsift_query q = session_query(s, layer, end, tokens);
    const kvsift_cache cache = toy_cache(s->toy, layer, end);
    memset(s->prompt_out, 0xff, bytes);
    for (bool begun = false; next_heads(s, &q, &begun);) {
      must(s->policy, kvsift_prefill_attend(s->policy, layer, &q, &cache, s->prompt_out));
    }
    session_add(s, s->prompt_out, bytes);
    if (s->look_prompt != NULL) s->look_prompt(s, layer, tokens);
  }
  must(s->policy, kvsift_advance(s->policy, tokens));
  s->tokens = end;
}

static void digest_lists(session *s, const kvsift_selection *sel) {
  session_add(s, &sel->everything, sizeof sel->everything);
  session_add(s, &sel->calibration, sizeof sel->calibration);
  for (uint32_t list = 0; list < sel->lists; ++list) {
    session_add(s, sel->ranges + (uint64_t)list * sel->range_stride, sel->range_counts[list] * sizeof(kvsift_range));
    session_add(s, sel->blocks + (uint64_t)list * sel->block_stride, sel->block_counts[list] * sizeof(uint32_t));
  }
}

static void digest_coreset(session *s, const kvsift_selection *sel) {
  if (sel->tail != KVSIFT_TAIL_BALANCE || sel->coreset == NULL) return;
  for (uint32_t head = 0; head < s->config.kv_heads; ++head) {
    const uint64_t at = (uint64_t)head * sel->coreset_stride;
    session_add(s, sel->coreset + at, sel->coreset_counts[head] * sizeof(uint32_t));
    session_add(s, sel->coreset_weights + at, sel->coreset_counts[head] * sizeof(float));
  }
}

static void digest_observation(session *s, const kvsift_observation *o) {
  const uint32_t blocks = (o->tokens + s->config.block_tokens - 1) / s->config.block_tokens;
  for (uint32_t q = 0; q < s->config.query_heads; ++q) {
    if (o->block_max != NULL) session_add(s, o->block_max + (uint64_t)q * o->block_stride, blocks * sizeof(float));
    session_add(s, o->block_mass + (uint64_t)q * o->block_stride, blocks * sizeof(float));
  }
  session_add(s, o->log_sum_exp, s->config.query_heads * sizeof(float));
}

bool session_wants_max(uint32_t needs, uint32_t tokens) {
  return (needs & KVSIFT_NEEDS_MASS) == 0 || tokens % 2 == 0;
}

static kvsift_observation observation_to_fill(const session *s, uint32_t tokens) {
  return (kvsift_observation){.struct_size = sizeof(kvsift_observation), .block_stride = s->block_stride,
                              .block_max = session_wants_max(s->needs, tokens) ? s->block_max : NULL,
                              .block_mass = s->block_mass, .log_sum_exp = s->log_sum_exp};
}

/* Attention of a step into s->out, and an observation where none is learnt from on the way. */
static void attend(session *s, uint32_t layer, kvsift_selection *sel, kvsift_observation *o) {
  kvsift_query q = session_query(s, layer, s->tokens + 1, 1);
  const kvsift_cache cache = toy_cache(s->toy, layer, s->tokens + 1);
  memset(s->out, 0xff, 4ull * s->config.query_heads * s->config.head_dim);
  for (bool begun = false; next_heads(s, &q, &begun);) {
    must(s->policy, kvsift_select_blocks(s->policy, layer, &q, sel));
    if (s->at_once) {
      must(s->policy, kvsift_decode_attend(s->policy, layer, &q, &cache, sel, s->out));
    } else {
      must(s->policy, kvsift_attend(s->policy, layer, &q, &cache, sel, s->out, o));
    }
  }
}

static void step_layer(session *s, uint32_t layer) {
  const uint32_t tokens = s->tokens + 1;
  kvsift_query q = session_query(s, layer, tokens, 1);
  kvsift_selection sel = {.struct_size = sizeof sel};
  kvsift_observation o = observation_to_fill(s, tokens);
  if (!s->keys_given) session_keys(s, layer, 1);
  attend(s, layer, &sel, &o);
  digest_lists(s, &sel);
  digest_coreset(s, &sel);
  if (!s->at_once && !s->blind) digest_observation(s, &o);
  session_add(s, s->out, 4ull * s->config.query_heads * s->config.head_dim);
  const session_answer answer = {layer, tokens, &sel, s->out, s->at_once ? NULL : &o};
  if (s->look != NULL) s->look(s, &answer);
  for (bool begun = false; !s->at_once && next_heads(s, &q, &begun);) {
    must(s->policy, kvsift_observe_attention(s->policy, layer, &q, &o));
  }
}

void session_steps(session *s, uint32_t steps) {
  for (; steps > 0; --steps) {
    for (uint32_t layer = 0; layer < s->config.layers; ++layer) step_layer(s, layer);
    must(s->policy, kvsift_advance(s->policy, 1));
    ++s->tokens;
    s->keys_given = false;
  }
}

void session_truncate(session *s, uint32_t tokens) {
  must(s->policy, kvsift_truncate(s->policy, tokens));
  s->tokens = tokens;
}

static session *session_beside(const session *s) {
  session *copy = calloc(1, sizeof *copy);
  *copy = *s;
  copy->arena = guarded_new(s->arena_bytes);
  make_room(copy);
  return copy;
}

session *session_fork(const session *s) {
  session *copy = session_beside(s);
  memset(copy->arena, 0x5a, copy->arena_bytes);
  must(s->policy, kvsift_fork(s->policy, copy->arena, copy->arena_bytes, &copy->policy));
  return copy;
}

session *session_reload(const session *s) {
  uint64_t bytes = 0, written = 0;
  session *copy = session_beside(s);
  memset(copy->arena, 0x5a, copy->arena_bytes);
  must(s->policy, kvsift_snapshot_size(s->policy, &bytes));
  void *buffer = guarded_new(bytes);
  must(s->policy, kvsift_snapshot_save(s->policy, buffer, bytes, &written));
  expect(written == bytes, "snapshot of %llu bytes, written %llu", (unsigned long long)bytes, (unsigned long long)written);
  expect(kvsift_policy_create(&s->config, copy->arena, copy->arena_bytes, &copy->policy) == KVSIFT_OK, "create");
  must(copy->policy, kvsift_snapshot_load(copy->policy, buffer, bytes));
  guarded_free(buffer, bytes);
  return copy;
}

#include "shapes.h"

#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>

#include <cmocka.h>
#include <kvsift/balance.h>

#define PICK(r, ...) pick((r), (const uint32_t[]){__VA_ARGS__}, sizeof((const uint32_t[]){__VA_ARGS__}) / 4)

static uint32_t pick(test_random *r, const uint32_t *from, uint32_t count) { return from[random_below(r, count)]; }

static void pick_geometry(test_random *r, kvsift_policy_config *c) {
  c->layers = 1 + random_below(r, 3);
  c->kv_heads = 1 + random_below(r, 3);
  c->query_heads = c->kv_heads * PICK(r, 1, 2, 3, 4, 4, 8, 16);
  c->head_dim = PICK(r, 1, 4, 8, 16, 17, 32, 40, 64, 80, 128, 256);
  if (c->head_dim > 64 && c->query_heads > 16) c->query_heads = c->kv_heads * 2;
  c->max_tokens = 24 + random_below(r, 200);
  c->dense_layers = random_below(r, 4) == 0 ? random_below(r, c->layers) : 0;
}

static void pick_blocks(test_random *r, kvsift_policy_config *c) {
  c->block_tokens = PICK(r, 1, 1, 2, 5, 8, 16, 16);
  c->page_tokens = PICK(r, 4, 5, 8, 16);
  const int pages = c->method == KVSIFT_METHOD_QUEST || c->method == KVSIFT_METHOD_PAGE_STATS;
  if (c->method == KVSIFT_METHOD_ATTENTION_PREDICTOR && random_below(r, 3) == 0) c->verify_blocks = 1 + random_below(r, 3);
  if (c->method == KVSIFT_METHOD_EMA && random_below(r, 4) == 0) c->verify_blocks = 1 + random_below(r, 3);
  if (pages || c->verify_blocks > 0) c->page_tokens = c->block_tokens;
}

static void pick_budget(test_random *r, kvsift_policy_config *c) {
  c->sink_tokens = random_below(r, 3) == 0 ? 0 : random_below(r, 12);
  c->local_tokens = random_below(r, 3) == 0 ? 0 : random_below(r, 20);
  const uint32_t least = c->sink_tokens + (c->local_tokens > 0 ? c->local_tokens : 1) + c->block_tokens;
  c->budget_tokens = least + random_below(r, c->max_tokens / 2);
  c->budget_share = random_below(r, 3) == 0 ? 0.5f * random_unit(r) : 0;
  c->target_mass = random_below(r, 4) == 0 ? 0.2f + 0.75f * random_unit(r) : 0;
  if (c->method == KVSIFT_METHOD_FULL) c->budget_tokens = KVSIFT_MAX_TOKENS;
}

static void pick_own(test_random *r, kvsift_policy_config *c) {
  c->window = 1 + random_below(r, c->budget_tokens < 24 ? c->budget_tokens : 24);
  const uint32_t fixed = c->sink_tokens + (c->window > c->local_tokens ? c->window : c->local_tokens);
  const int votes = c->method == KVSIFT_METHOD_SNAPKV || c->method == KVSIFT_METHOD_PYRAMIDKV;
  if (votes && c->budget_tokens < fixed) c->budget_tokens = fixed;
  c->pool_kernel = 1 + 2 * random_below(r, 4);
  c->pooling = random_below(r, 2);
  c->recent_share = c->method == KVSIFT_METHOD_H2O ? 0.9f * random_unit(r) : 0;
  c->ema_decay = random_unit(r);
  c->calibration_period = random_below(r, 6);
  c->calibration_dense = random_below(r, 2);
  c->history_rows = 5 + random_below(r, 12);
  c->predict_period = 1 + random_below(r, 3);
  c->history_floor = random_below(r, 3) == 0 ? 0.01f : 0;
  c->balance_halvings = 1 + random_below(r, 3);
  c->balance_group = 32 + 2 * random_below(r, 17);
  c->balance_streaming = random_below(r, 2);
  c->balance_guard = random_below(r, 3) == 0;
  c->balance_form = PICK(r, KVSIFT_BALANCE_PRACTICAL, KVSIFT_BALANCE_PRACTICAL, KVSIFT_BALANCE_UNIFORM,
                         KVSIFT_BALANCE_RELATIVE, KVSIFT_BALANCE_GRADED, KVSIFT_BALANCE_GRADED);
  c->coreset_tokens = 128 + random_below(r, 200);
}

static void pick_tail(test_random *r, kvsift_policy_config *c) {
  c->tail = random_below(r, 3);
  if (c->method == KVSIFT_METHOD_FULL) c->tail = KVSIFT_TAIL_NONE;
  if (c->method == KVSIFT_METHOD_BALANCE) c->tail = KVSIFT_TAIL_BALANCE;
  c->moments_type = random_below(r, 2) == 0 ? KVSIFT_F16 : KVSIFT_I8;
}

static void pick_predictor(test_random *r, kvsift_policy_config *c) {
  c->history_type = PICK(r, KVSIFT_F32, KVSIFT_F16, KVSIFT_I8);
  c->predictor_arithmetic = PICK(r, KVSIFT_F32, KVSIFT_BF16, KVSIFT_I8);
}

kvsift_policy_config shape_config(test_random *r, kvsift_method method) {
  kvsift_policy_config c = {.struct_size = sizeof c};
  kvsift_policy_config_init(&c, method);
  pick_geometry(r, &c);
  pick_blocks(r, &c);
  pick_budget(r, &c);
  c.grouping = random_below(r, 3);
  pick_tail(r, &c);
  c.rollback_tokens = random_below(r, 3) == 0 ? 0 : random_below(r, 20);
  c.softmax_scale = random_below(r, 4) == 0 ? 0.3f : 0;
  c.seed = random_bits(r);
  pick_own(r, &c);
  c.dense_tokens = random_below(r, 3) != 0 ? KVSIFT_DENSE_OFF : random_below(r, 2) * random_below(r, c.max_tokens);
  if (method == KVSIFT_METHOD_ATTENTION_PREDICTOR) pick_predictor(r, &c);
  return c;
}

int shape_supported(kvsift_method method) {
  test_random r = {5};
  kvsift_policy_config c = shape_config(&r, method);
  uint64_t bytes;
  if (kvsift_policy_arena_size(&c, &bytes, NULL) != KVSIFT_UNSUPPORTED) return 1;
  print_message("skipped: method %s is not in this build\n", kvsift_method_name(method));
  return 0;
}

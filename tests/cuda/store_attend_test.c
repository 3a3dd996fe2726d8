/* Attention over the slots of a store in front of pinned memory: what the CPU's policy and store give, bit for bit, with int8
 * storage, under late caps and with checksums. */
#include <stdlib.h>
#include <string.h>

#include "store_twin.h"

/* One side's answers. */
typedef struct answer {
  kvsift_selection lists; /* in host memory */
  kvsift_cache cache;
  uint32_t full;
  float out[HEADS * DIM], block_max[HEADS * BLOCKS], log_sum_exp[HEADS];
} answer;

static void answer_here(twin *t, uint32_t layer, const kvsift_query *query, answer *a) {
  kvsift_observation o = {.struct_size = sizeof o, .block_stride = BLOCKS, .block_max = a->block_max, .log_sum_exp = a->log_sum_exp};
  a->lists.struct_size = sizeof a->lists, a->cache.struct_size = sizeof a->cache;
  HERE(t, kvsift_select_blocks(t->policy, layer, query, &a->lists));
  HERE(t, kvsift_store_resolve(t->store, layer, &a->lists, &a->cache));
  HERE(t, kvsift_attend(t->policy, layer, query, &a->cache, &a->lists, a->out, &o));
  a->full = o.full;
}

static void answer_there(twin *t, uint32_t layer, const kvsift_query *query, answer *a) {
  kvsift_observation o = {.struct_size = sizeof o, .block_stride = BLOCKS, .block_max = t->block_max, .log_sum_exp = t->log_sum_exp};
  kvsift_cuda_selection chosen = {.struct_size = sizeof chosen}, present = chosen;
  a->lists.struct_size = sizeof a->lists, a->cache.struct_size = sizeof a->cache;
  THERE(t, kvsift_cuda_select_blocks(t->device_policy, layer, query, &chosen, gpu_stream()));
  THERE(t, kvsift_cuda_store_receive(t->device_store, &chosen, gpu_stream(), &a->lists));
  const kvsift_range *received = a->lists.ranges;
  THERE(t, kvsift_cuda_store_resolve(t->device_store, layer, &a->lists, &a->cache, gpu_stream()));
  /* What is fetched behind may come before the attention or after it. */
  if (query->tokens % 2 == 0) THERE(t, kvsift_cuda_store_flush(t->device_store));
  if (a->lists.ranges != received) {
    THERE(t, kvsift_cuda_keep_present(t->device_policy, layer, query, &a->cache, &present, gpu_stream()));
    /* The device made the lists that the host made. */
    assert_int_equal(present.lists.everything, a->lists.everything);
    assert_int_equal(present.lists.calibration, a->lists.calibration);
    assert_int_equal(present.lists.tail, a->lists.tail);
    for (uint32_t l = 0; l < a->lists.lists; ++l) {
      uint32_t count = 0;
      kvsift_range ranges[BLOCKS + 1];
      gpu_read(&count, present.lists.range_counts + l, sizeof count);
      assert_int_equal(count, a->lists.range_counts[l]);
      gpu_read(ranges, present.lists.ranges + (size_t)l * present.lists.range_stride, count * sizeof *ranges);
      assert_memory_equal(ranges, a->lists.ranges + (size_t)l * a->lists.range_stride, count * sizeof *ranges);
    }
  }
  THERE(t, kvsift_cuda_attend(t->device_policy, layer, query, &a->cache, t->device_out, &o, gpu_stream()));
  a->full = o.full;
  gpu_read(a->out, t->device_out, sizeof a->out);
  gpu_read(a->block_max, t->block_max, sizeof a->block_max);
  gpu_read(a->log_sum_exp, t->log_sum_exp, sizeof a->log_sum_exp);
}

static void compare(const answer *here, const answer *there, uint32_t layer, uint32_t tokens) {
  for (uint32_t l = 0; l < here->lists.lists; ++l) {
    const uint32_t count = here->lists.range_counts[l];
    expect(there->lists.range_counts[l] == count, "layer %u, %u tokens, list %u: %u ranges, %u on the device", layer, tokens, l,
           count, there->lists.range_counts[l]);
    expect(memcmp(here->lists.ranges + (size_t)l * here->lists.range_stride,
                  there->lists.ranges + (size_t)l * there->lists.range_stride, count * sizeof(kvsift_range)) == 0,
           "layer %u, %u tokens, list %u: other ranges", layer, tokens, l);
  }
  expect(there->full == here->full, "layer %u: full is %u, %u on the device", layer, here->full, there->full);
  const uint32_t blocks = (tokens + BLOCK - 1) / BLOCK;
  expect(memcmp(here->out, there->out, sizeof here->out) == 0, "layer %u, %u tokens: another output", layer, tokens);
  expect(memcmp(here->log_sum_exp, there->log_sum_exp, sizeof here->log_sum_exp) == 0, "layer %u: another sum", layer);
  for (uint32_t h = 0; h < HEADS; ++h) {
    expect(memcmp(here->block_max + h * BLOCKS, there->block_max + h * BLOCKS, blocks * sizeof(float)) == 0,
           "layer %u, %u tokens, head %u: other maxima", layer, tokens, h);
  }
}

/* What the CPU's store began to fetch has come, so that its next choice of slots does not depend on time. */
static void settle(twin *t, uint32_t layer, const kvsift_selection *lists) {
  static const uint32_t none[HEADS];
  kvsift_ticket ticket = 0;
  kvsift_selection empty = *lists;
  empty.range_counts = none;
  HERE(t, kvsift_store_prefetch(t->store, layer, &empty, &ticket));
  HERE(t, kvsift_store_wait(t->store, ticket));
}

static void same_counters(twin *t) {
  kvsift_store_stats here = {.struct_size = sizeof here}, there = here;
  HERE(t, kvsift_store_get_stats(t->store, &here));
  THERE(t, kvsift_cuda_store_get_stats(t->device_store, &there));
  assert_int_equal(there.hits, here.hits);
  assert_int_equal(there.prefetched, here.prefetched);
  assert_int_equal(there.late, here.late);
  assert_int_equal(there.dropped, here.dropped);
  assert_int_equal(there.blocks_prefetched, here.blocks_prefetched);
  assert_int_equal(there.prefetch_unplaced, here.prefetch_unplaced);
  assert_int_equal(there.bytes_read, here.bytes_read);
  const bool capped = t->form.late_blocks != KVSIFT_STORE_NO_LIMIT;
  assert_true(here.hits > 0 && (here.late > 0) == (t->form.late_blocks > 0));
  assert_true((here.dropped > 0) == capped && (here.prefetched > 0) == capped);
}

/* The device's slots against what the CPU's store reads back. */
static void same_rows(twin *t, uint32_t layer, const kvsift_cache *cache) {
  const uint64_t row = DIM * (t->form.storage == KVSIFT_F32 ? 4 : t->form.storage == KVSIFT_I8 ? 1 : 2);
  static int32_t table[KV_HEADS * BLOCKS];
  static uint8_t keys[4 * DIM * BLOCK], values[4 * DIM * BLOCK], got[2][4 * DIM * BLOCK];
  float scales[2][BLOCK], got_scales[2][BLOCK];
  gpu_read(table, cache->block_table, sizeof table);
  for (uint32_t i = 0; i < KV_HEADS * BLOCKS; ++i) {
    if (table[i] < 0) continue;
    const uint32_t first = i % BLOCKS * BLOCK, rows = TOKENS - first < BLOCK ? TOKENS - first : BLOCK;
    HERE(t, kvsift_store_read(t->store, layer, i / BLOCKS, first, rows, keys, values, scales[0], scales[1]));
    const uint64_t slot = (uint32_t)table[i] * cache->keys.page_stride;
    gpu_read(got[0], (const uint8_t *)cache->keys.data + slot, row * BLOCK);
    gpu_read(got[1], (const uint8_t *)cache->values.data + slot, row * BLOCK);
    expect(memcmp(got[0], keys, rows * row) == 0 && memcmp(got[1], values, rows * row) == 0, "block %u of head %u differs",
           i % BLOCKS, i / BLOCKS);
    if (t->form.storage != KVSIFT_I8) continue;
    gpu_read(got_scales[0], (const uint8_t *)cache->keys.scales + slot, sizeof got_scales[0]);
    gpu_read(got_scales[1], (const uint8_t *)cache->values.scales + slot, sizeof got_scales[1]);
    expect(memcmp(got_scales[0], scales[0], 4 * rows) == 0 && memcmp(got_scales[1], scales[1], 4 * rows) == 0,
           "scales of block %u of head %u differ", i % BLOCKS, i / BLOCKS);
  }
}

static void decode(twin_form form) {
  cases_name("method %u, grouping %u, type %u, storage %u, late blocks %u", form.method, form.grouping, form.type, form.storage,
             form.late_blocks);
  twin *t = twin_new(form);
  static answer here, there;
  for (uint32_t first = 0; first < PROMPT; first += BLOCK) {
    for (uint32_t l = 0; l < LAYERS; ++l) twin_append(t, l, first, BLOCK);
  }
  twin_advance(t, PROMPT);
  for (uint32_t tokens = PROMPT + 1; tokens <= TOKENS; ++tokens) {
    for (uint32_t l = 0; l < LAYERS; ++l) {
      const kvsift_query q = twin_query(t, tokens, false), device_q = twin_query(t, tokens, true);
      twin_append(t, l, tokens - 1, 1);
      answer_here(t, l, &q, &here);
      answer_there(t, l, &device_q, &there);
      compare(&here, &there, l, tokens);
      settle(t, l, &here.lists);
      if (tokens % 3 != 0) continue;
      HERE(t, kvsift_store_prefetch(t->store, l, &here.lists, NULL));
      THERE(t, kvsift_cuda_store_prefetch(t->device_store, l, &there.lists, gpu_stream(), NULL));
      settle(t, l, &here.lists);
    }
    twin_advance(t, 1);
  }
  same_counters(t);
  same_rows(t, LAYERS - 1, &there.cache);
  THERE(t, kvsift_cuda_store_flush(t->device_store));
  twin_free(t);
}

#define MOMENTS KVSIFT_METHOD_PAGE_STATS, KVSIFT_GROUP_MEAN, KVSIFT_TAIL_MOMENTS, 0
#define BY_QUERY KVSIFT_METHOD_QUEST, KVSIFT_GROUP_QUERY_HEAD, KVSIFT_TAIL_MOMENTS, 0

static void int8_storage(void **state) {
  (void)state;
  for (uint32_t type = KVSIFT_F32; type <= KVSIFT_I8; ++type) {
    decode((twin_form){MOMENTS, (kvsift_type)type, KVSIFT_I8, KVSIFT_STORE_NO_LIMIT, 1});
  }
  decode((twin_form){MOMENTS, KVSIFT_F16, KVSIFT_F16, KVSIFT_STORE_NO_LIMIT, 1});
}

static void late_caps(void **state) {
  (void)state;
  decode((twin_form){MOMENTS, KVSIFT_F16, KVSIFT_F16, 2, 0});
  decode((twin_form){MOMENTS, KVSIFT_F32, KVSIFT_I8, 1, 1});
  decode((twin_form){BY_QUERY, KVSIFT_BF16, KVSIFT_BF16, 0, 0});
  decode((twin_form){KVSIFT_METHOD_PAGE_STATS, KVSIFT_GROUP_QUERY_HEAD, KVSIFT_TAIL_NONE, 0, KVSIFT_F16, KVSIFT_F16, 1, 0});
  /* A layer that chooses everything is attended to with holes; nothing finds a slot. */
  decode((twin_form){KVSIFT_METHOD_PAGE_STATS, KVSIFT_GROUP_QUERY_HEAD, KVSIFT_TAIL_MOMENTS, 1, KVSIFT_F16, KVSIFT_F16, 0, 0});
  decode((twin_form){KVSIFT_METHOD_PAGE_STATS, KVSIFT_GROUP_MEAN, KVSIFT_TAIL_MOMENTS, 2, KVSIFT_F16, KVSIFT_F16, 0, 0});
}

/* Prompt and new token, and a selection of layer 0; the records of head 0 in slow memory have changed since. */
static twin *with_changed_records(kvsift_query *here, kvsift_query *there) {
  twin *t = twin_new((twin_form){MOMENTS, KVSIFT_F16, KVSIFT_F16, KVSIFT_STORE_NO_LIMIT, 1});
  for (uint32_t l = 0; l < LAYERS; ++l) twin_append(t, l, 0, PROMPT);
  twin_advance(t, PROMPT);
  twin_append(t, 0, PROMPT, 1);
  THERE(t, kvsift_cuda_store_flush(t->device_store));
  for (uint32_t b = 0; b < BLOCKS; ++b) ((uint8_t *)t->memory[7])[b * (4 * DIM * BLOCK) + 9 * b] ^= 1;
  *here = twin_query(t, PROMPT + 1, false), *there = twin_query(t, PROMPT + 1, true);
  return t;
}

static void refused_blocks_are_left_out(void **state) {
  (void)state;
  kvsift_query here, there;
  twin *t = with_changed_records(&here, &there);
  kvsift_cuda_selection chosen = {.struct_size = sizeof chosen}, present = chosen;
  kvsift_selection lists = {.struct_size = sizeof lists}, mine = lists;
  kvsift_cache cache = {.struct_size = sizeof cache}, whole = cache;
  THERE(t, kvsift_cuda_select_blocks(t->device_policy, 0, &there, &chosen, gpu_stream()));
  THERE(t, kvsift_cuda_store_receive(t->device_store, &chosen, gpu_stream(), &lists));
  THERE(t, kvsift_cuda_store_resolve(t->device_store, 0, &lists, &cache, gpu_stream()));
  THERE(t, kvsift_cuda_keep_present(t->device_policy, 0, &there, &cache, &present, gpu_stream()));
  THERE(t, kvsift_cuda_attend(t->device_policy, 0, &there, &cache, t->device_out, NULL, gpu_stream()));
  gpu_wait();
  assert_int_equal(kvsift_cuda_store_flush(t->device_store), KVSIFT_CORRUPT);

  /* The CPU with the lists that are left. */
  static kvsift_range ranges[KV_HEADS][BLOCKS];
  uint32_t counts[KV_HEADS];
  float out[2][HEADS * DIM];
  gpu_read(counts, present.lists.range_counts, sizeof counts);
  for (uint32_t h = 0; h < KV_HEADS; ++h) {
    gpu_read(ranges[h], present.lists.ranges + (size_t)h * present.lists.range_stride, counts[h] * sizeof(kvsift_range));
  }
  HERE(t, kvsift_select_blocks(t->policy, 0, &here, &mine));
  HERE(t, kvsift_store_resolve(t->store, 0, &mine, &whole));
  assert_true(counts[0] < mine.range_counts[0] && counts[1] == mine.range_counts[1]);
  mine.ranges = ranges[0], mine.range_counts = counts, mine.range_stride = BLOCKS;
  HERE(t, kvsift_attend(t->policy, 0, &here, &whole, &mine, out[0], NULL));
  gpu_read(out[1], t->device_out, sizeof out[1]);
  assert_memory_equal(out[0], out[1], sizeof out[0]);
  /* The policy is not lost. */
  THERE(t, kvsift_cuda_attend(t->device_policy, 0, &there, &cache, t->device_out, NULL, gpu_stream()));
  twin_free(t);
}

static void or_the_policy_says_so(void **state) {
  (void)state;
  kvsift_query here, there;
  twin *t = with_changed_records(&here, &there);
  kvsift_cuda_selection chosen = {.struct_size = sizeof chosen};
  kvsift_selection lists = {.struct_size = sizeof lists};
  kvsift_cache cache = {.struct_size = sizeof cache};
  THERE(t, kvsift_cuda_select_blocks(t->device_policy, 0, &there, &chosen, gpu_stream()));
  THERE(t, kvsift_cuda_store_receive(t->device_store, &chosen, gpu_stream(), &lists));
  THERE(t, kvsift_cuda_store_resolve(t->device_store, 0, &lists, &cache, gpu_stream()));
  THERE(t, kvsift_cuda_attend(t->device_policy, 0, &there, &cache, t->device_out, NULL, gpu_stream()));
  gpu_wait();
  assert_int_equal(kvsift_cuda_advance(t->device_policy, 0, gpu_stream()), KVSIFT_INVALID_ARGUMENT);
  twin_free(t);
}

static void misuse_of_keep_present(void **state) {
  (void)state;
  kvsift_query here, q;
  twin *t = with_changed_records(&here, &q);
  kvsift_cuda_policy *p = t->device_policy;
  kvsift_cuda_selection chosen = {.struct_size = sizeof chosen}, small = {.struct_size = 8};
  kvsift_selection lists = {.struct_size = sizeof lists};
  kvsift_cache cache = {.struct_size = sizeof cache}, bad;
  assert_int_equal(kvsift_cuda_keep_present(NULL, 0, &q, &cache, NULL, gpu_stream()), KVSIFT_INVALID_ARGUMENT);
  THERE(t, kvsift_cuda_select_blocks(p, 0, &q, &chosen, gpu_stream()));
  THERE(t, kvsift_cuda_store_receive(t->device_store, &chosen, gpu_stream(), &lists));
  THERE(t, kvsift_cuda_store_resolve(t->device_store, 0, &lists, &cache, gpu_stream()));
  assert_int_equal(kvsift_cuda_keep_present(p, 0, NULL, &cache, NULL, gpu_stream()), KVSIFT_INVALID_ARGUMENT);
  assert_int_equal(kvsift_cuda_keep_present(p, 0, &q, NULL, NULL, gpu_stream()), KVSIFT_INVALID_ARGUMENT);
  assert_int_equal(kvsift_cuda_keep_present(p, 0, &q, &cache, &small, gpu_stream()), KVSIFT_INVALID_STRUCT_SIZE);
  assert_int_equal(kvsift_cuda_keep_present(p, LAYERS, &q, &cache, NULL, gpu_stream()), KVSIFT_INVALID_ARGUMENT);
  bad = cache, bad.block_table = NULL;
  assert_int_equal(kvsift_cuda_keep_present(p, 0, &q, &bad, NULL, gpu_stream()), KVSIFT_INVALID_ARGUMENT);
  bad = cache, bad.page_tokens = BLOCK / 2, bad.block_table_stride *= 2;
  assert_int_equal(kvsift_cuda_keep_present(p, 0, &q, &bad, NULL, gpu_stream()), KVSIFT_INVALID_ARGUMENT);
  assert_non_null(strstr(kvsift_cuda_last_error(p), "page_tokens 8 is no multiple of block_tokens 16"));
  kvsift_query part = q;
  part.first_kv_head = 1, part.kv_heads = 1;
  assert_int_equal(kvsift_cuda_keep_present(p, 0, &part, &cache, NULL, gpu_stream()), KVSIFT_INVALID_ARGUMENT);
  part = q, part.tokens = PROMPT;
  assert_int_equal(kvsift_cuda_keep_present(p, 0, &part, &cache, NULL, gpu_stream()), KVSIFT_OUT_OF_ORDER);
  THERE(t, kvsift_cuda_keep_present(p, 0, &q, &cache, NULL, gpu_stream()));
  twin_free(t);
}

int main(void) {
  if (!gpu_open()) return 77;
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(int8_storage),
      cmocka_unit_test(late_caps),
      cmocka_unit_test(refused_blocks_are_left_out),
      cmocka_unit_test(or_the_policy_says_so),
      cmocka_unit_test(misuse_of_keep_present),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}

#include "sift.h"

#include <inttypes.h>
#include <stdatomic.h>
#include <string.h>

#include "memory.h"

static bool take_arena(sift *out, failure *why) {
  kvsift_error error = {0};
  uint64_t alignment;
  out->config.error = &error;
  kvsift_status status = kvsift_policy_arena_size(&out->config, &out->arena_bytes, &alignment);
  out->config.error = NULL;
  if (status != KVSIFT_OK) return fail(why, "%s", error.message);
  out->arena = memory_take(out->arena_bytes, 1);
  if (out->arena != NULL) return true;
  return fail(why, "no memory for an arena of %" PRIu64 " bytes", out->arena_bytes);
}

static bool create(sift *out, failure *why) {
  kvsift_error error = {0};
  if (!take_arena(out, why)) return false;
  out->config.error = &error;
  kvsift_status status =
      kvsift_policy_create(&out->config, out->arena, out->arena_bytes, &out->policy);
  out->config.error = NULL;
  return status == KVSIFT_OK || fail(why, "%s", error.message);
}

static bool learn_needs(sift *out, failure *why) {
  out->info.struct_size = sizeof out->info;
  kvsift_status status = kvsift_policy_get_info(out->policy, &out->info);
  return status == KVSIFT_OK || fail(why, "%s", kvsift_last_error(out->policy));
}

bool sift_create(sift *out, const kvsift_policy_config *config, failure *why) {
  memset(out, 0, sizeof *out);
  out->config = *config;
  if (create(out, why) && learn_needs(out, why)) return true;
  sift_release(out);
  return false;
}

bool sift_fork(const sift *from, sift *out, failure *why) {
  memset(out, 0, sizeof *out);
  out->config = from->config;
  bool done = take_arena(out, why);
  if (done && kvsift_fork(from->policy, out->arena, out->arena_bytes, &out->policy) != KVSIFT_OK) {
    done = fail(why, "%s", kvsift_last_error(from->policy));
  }
  if (done && learn_needs(out, why)) return true;
  sift_release(out);
  return false;
}

void sift_release(sift *out) {
  if (out->policy != NULL) kvsift_policy_destroy(out->policy);
  memory_give(out->arena);
  memset(out, 0, sizeof *out);
}

void sift_set_geometry(kvsift_policy_config *config, const model *m, uint32_t capacity) {
  config->layers = m->layers;
  config->query_heads = m->query_heads;
  config->kv_heads = m->kv_heads;
  config->head_dim = m->head_dim;
  config->max_tokens = capacity;
}

/* A layer's work for a range of KV heads. Ranges of different threads are disjoint, so no lock is
 * needed. */
typedef struct layer_work {
  sift *with;
  const attention_input *input;
  float *out;
  kvsift_selection selection; /* the first part's; its lists are those of all heads */
  bool prompt, wants_output;
  atomic_bool failed;
} layer_work;

/* The last `rows` queries for the part's heads. */
static kvsift_query query_of(const attention_input *in, uint32_t rows, uint32_t part,
                             uint32_t parts) {
  uint64_t row = (uint64_t)in->model->head_dim * sizeof(float);
  uint64_t skipped = (uint64_t)(in->rows - rows) * in->model->query_heads * in->model->head_dim;
  uint32_t heads = in->model->kv_heads;
  uint32_t first = (uint32_t)((uint64_t)heads * part / parts);
  return (kvsift_query){.struct_size = sizeof(kvsift_query),
                        .tokens = in->tokens,
                        .view = {.data = in->queries + skipped,
                                 .type = KVSIFT_F32,
                                 .head_stride = row,
                                 .token_stride = row * in->model->query_heads},
                        .first_kv_head = first,
                        .kv_heads = (uint32_t)((uint64_t)heads * (part + 1) / parts) - first,
                        .rows = rows};
}

/* The rows from `token` on, as the library wants new keys. */
static kvsift_view from_token(kvsift_view view, uint32_t token) {
  view.data = (const uint8_t *)view.data + token * view.token_stride;
  if (view.scales != NULL) view.scales += token * view.scale_token_stride / sizeof(float);
  return view;
}

static kvsift_status observe_keys(const layer_work *work, const kvsift_query *query,
                                  const kvsift_cache *layer) {
  const attention_input *in = work->input;
  if ((work->with->info.needs & KVSIFT_NEEDS_KEYS) == 0) return KVSIFT_OK;
  uint32_t first = in->tokens - in->rows;
  kvsift_view keys = from_token(layer->keys, first), values = from_token(layer->values, first);
  return kvsift_observe_keys(work->with->policy, in->layer, query, first, in->rows, &keys, &values);
}

static kvsift_status decode_heads(layer_work *work, const kvsift_query *query,
                                  const kvsift_cache *layer, kvsift_selection *selection) {
  sift *with = work->with;
  uint32_t index = work->input->layer;
  kvsift_status status = kvsift_select_blocks(with->policy, index, query, selection);
  if (status != KVSIFT_OK) return status;
  return kvsift_decode_attend(with->policy, index, query, layer, selection, work->out);
}

/* Rows of a prompt's part that the policy must attend to: all where the output is wanted, else
 * those that the method learns from. */
static uint32_t wanted_rows(const layer_work *work) {
  const attention_input *in = work->input;
  uint32_t learns = work->with->info.prefill_rows;
  if (!work->prompt || work->wants_output) return in->rows;
  if (learns <= in->prompt_left) return 0;
  return learns - in->prompt_left < in->rows ? learns - in->prompt_left : in->rows;
}

static void layer_part(void *context, uint32_t part, uint32_t parts) {
  layer_work *work = context;
  const attention_input *in = work->input;
  uint32_t rows = wanted_rows(work);
  kvsift_query query = query_of(in, rows, part, parts);
  if (query.kv_heads == 0) return;
  kvsift_cache layer = cache_layer(in->cache, in->layer, in->tokens);
  kvsift_selection selection = {.struct_size = sizeof selection};
  kvsift_status status = observe_keys(work, &query, &layer);
  if (status == KVSIFT_OK && !work->prompt) {
    status = decode_heads(work, &query, &layer, &selection);
  } else if (status == KVSIFT_OK && rows > 0) {
    status = kvsift_prefill_attend(work->with->policy, in->layer, &query, &layer, work->out);
  }
  if (status != KVSIFT_OK) atomic_store(&work->failed, true);
  if (query.first_kv_head == 0) work->selection = selection;
}

static bool run_layer(layer_work *work, failure *why) {
  workers_run(work->input->pool, layer_part, work);
  if (!atomic_load(&work->failed)) return true;
  return fail(why, "layer %" PRIu32 ", %" PRIu32 " tokens: %s", work->input->layer,
              work->input->tokens, kvsift_last_error(work->with->policy));
}

bool sift_prompt(sift *with, const attention_input *input, float *out, bool wanted, failure *why) {
  layer_work work = {
      .with = with, .input = input, .out = out, .prompt = true, .wants_output = wanted};
  return run_layer(&work, why);
}

/* Tokens in at least one of the KV head's lists: what is read from memory, however many query heads
 * use it. */
static uint32_t union_of_lists(const kvsift_selection *s, uint32_t first, uint32_t lists) {
  uint32_t at[KVSIFT_MAX_GROUP] = {0}, end = 0, total = 0;
  for (;;) {
    const kvsift_range *next = NULL;
    uint32_t from = 0;
    for (uint32_t i = 0; i < lists; i++) {
      if (at[i] == s->range_counts[first + i]) continue;
      const kvsift_range *range = &s->ranges[(uint64_t)(first + i) * s->range_stride + at[i]];
      if (next == NULL || range->begin < next->begin) {
        next = range;
        from = i;
      }
    }
    if (next == NULL) return total;
    uint32_t begin = next->begin > end ? next->begin : end;
    if (next->end > begin) total += next->end - begin;
    if (next->end > end) end = next->end;
    at[from]++;
  }
}

static void count_rows(sift *with, const attention_input *in, const kvsift_selection *s) {
  uint32_t group = s->per_query_head ? in->model->query_heads / in->model->kv_heads : 1;
  for (uint32_t h = 0; h < in->model->kv_heads; h++) {
    uint32_t read = s->everything ? in->tokens : union_of_lists(s, h * group, group);
    if (!s->everything && s->coreset_counts != NULL) read += s->coreset_counts[h];
    with->values_read += read;
    with->keys_read += s->calibration ? in->tokens : read;
  }
}

bool sift_decode(sift *with, const attention_input *input, float *out, failure *why) {
  layer_work work = {.with = with, .input = input, .out = out};
  if (!run_layer(&work, why)) return false;
  count_rows(with, input, &work.selection);
  if (with->listener.heard != NULL) {
    with->listener.heard(with->listener.self, input, &work.selection, out);
  }
  return true;
}

bool sift_advance(sift *with, uint32_t tokens, failure *why) {
  if (kvsift_advance(with->policy, tokens) == KVSIFT_OK) return true;
  return fail(why, "%s", kvsift_last_error(with->policy));
}

static bool attend_set(void *self, const attention_input *input, float *out, failure *why) {
  sift_set *set = self;
  if (!input->prompt) return sift_decode(set->list[0], input, out, why);
  for (uint32_t i = 0; i < set->count; i++) {
    if (!sift_prompt(set->list[i], input, i == 0 ? out : set->unused, i == 0, why)) return false;
  }
  return true;
}

static bool advance_set(void *self, uint32_t tokens, failure *why) {
  sift_set *set = self;
  for (uint32_t i = 0; i < set->count; i++) {
    if (!sift_advance(set->list[i], tokens, why)) return false;
  }
  return true;
}

attention sift_attention(sift_set *set) { return (attention){set, attend_set, advance_set}; }

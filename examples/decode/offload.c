#include "offload.h"

#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#include "file.h"
#include "generate.h"
#include "memory.h"
#include "sift.h"
#include "tiers.h"

#define TRACE_EVENTS (1u << 16)

typedef struct offload {
  sift sift;
  kvsift_store *store;
  kvsift_store_config config;
  void *arena, *host; /* as taken, not yet aligned */
  uint64_t arena_bytes;
} offload;

static bool refuse(const offload *o, failure *why) {
  const char *text = kvsift_store_last_error(o->store);
  return fail(why, "%s", text[0] != 0 ? text : kvsift_last_error(o->sift.policy));
}

/* Room whose start is a multiple of `alignment`; *taken is what to give back. */
static void *take_aligned(uint64_t bytes, uint64_t alignment, void **taken) {
  uint8_t *block = *taken = memory_take(bytes + alignment, 1);
  if (block == NULL) return NULL;
  return block + (alignment - (uintptr_t)block % alignment) % alignment;
}

static void configure(offload *o, const engine *e, const options *from) {
  kvsift_store_config *c = &o->config;
  const kvsift_policy_config *policy = &o->sift.config;
  bool host = strcmp(from->offload, "host") == 0;
  *c = (kvsift_store_config){.struct_size = sizeof *c};
  kvsift_store_config_init(c, host ? KVSIFT_STORE_HOST : KVSIFT_STORE_FILE);
  c->layers = e->model->layers;
  c->query_heads = e->model->query_heads;
  c->kv_heads = e->model->kv_heads;
  c->head_dim = e->model->head_dim;
  c->max_tokens = e->cache.capacity;
  c->type = c->storage = e->cache.type;
  c->resident_layers = policy->dense_layers;
  c->sink_tokens = policy->sink_tokens;
  c->local_tokens = policy->local_tokens;
  c->fast_blocks = tiers_fast_blocks(from->fast_blocks, c->max_tokens, c->block_tokens);
  c->late_blocks = from->late_blocks != UNSET ? from->late_blocks : KVSIFT_STORE_NO_LIMIT;
  c->alignment = host ? 64 : 512; /* small heads have small records */
  c->timing = 1;
  c->trace_events = from->trace != NULL ? TRACE_EVENTS : 0;
  c->path = host ? NULL : from->offload;
}

static bool create_store(offload *o, failure *why) {
  kvsift_error error = {0};
  uint64_t alignment, slow;
  o->config.error = &error;
  if (kvsift_store_arena_size(&o->config, &o->arena_bytes, &alignment) != KVSIFT_OK ||
      kvsift_store_slow_size(&o->config, &slow) != KVSIFT_OK) {
    return fail(why, "%s", error.message);
  }
  if (o->config.backend == KVSIFT_STORE_HOST) {
    o->config.host_memory = take_aligned(slow, o->config.alignment, &o->host);
    o->config.host_bytes = slow;
  }
  void *arena = take_aligned(o->arena_bytes, alignment, &o->arena);
  if (arena == NULL) return fail(why, "no memory for %" PRIu64 " bytes", o->arena_bytes);
  if (o->config.path != NULL && !file_claim(o->config.path, why)) return false;
  kvsift_status status = kvsift_store_create(&o->config, arena, o->arena_bytes, &o->store);
  o->config.error = NULL;
  /* The store has it open: so it is gone however this program ends. */
  if (o->config.path != NULL) unlink(o->config.path);
  return status == KVSIFT_OK || fail(why, "%s", error.message);
}

/* A view of rows that begins at `token`. */
static kvsift_view from_token(kvsift_view view, uint32_t token) {
  view.data = (const uint8_t *)view.data + token * view.token_stride;
  if (view.scales != NULL) view.scales += token * view.scale_token_stride / sizeof(float);
  return view;
}

/* The rows that the engine has just written, to policy and store. */
static bool add_rows(offload *o, const attention_input *in, bool to_policy, failure *why) {
  kvsift_cache layer = cache_layer(in->cache, in->layer, in->tokens);
  uint32_t first = in->tokens - in->rows;
  kvsift_view keys = from_token(layer.keys, first), values = from_token(layer.values, first);
  kvsift_status status =
      kvsift_store_append(o->store, in->layer, first, in->rows, &keys, &values);
  if (status == KVSIFT_OK && to_policy) {
    status = kvsift_observe_keys(o->sift.policy, in->layer, NULL, first, in->rows, &keys, &values);
  }
  return status == KVSIFT_OK || refuse(o, why);
}

static bool look_ahead(offload *o, const attention_input *in, failure *why) {
  kvsift_query next = {.struct_size = sizeof next, .tokens = in->tokens + 1};
  kvsift_selection ahead = {.struct_size = sizeof ahead};
  if (!tiers_look_ahead(&o->sift.config, in->tokens)) return true;
  kvsift_status status = kvsift_predict_next(o->sift.policy, in->layer, NULL);
  if (status == KVSIFT_OK) {
    status = kvsift_select_blocks(o->sift.policy, in->layer, &next, &ahead);
  }
  if (status == KVSIFT_OK) status = kvsift_store_prefetch(o->store, in->layer, &ahead, NULL);
  return status == KVSIFT_OK || refuse(o, why);
}

/* A decode step's layer: the store's slots are all of the cache that is read. */
static bool decode_layer(offload *o, const attention_input *in, float *out, failure *why) {
  kvsift_query query = {.struct_size = sizeof query,
                        .tokens = in->tokens,
                        .view = {.data = in->queries,
                                 .type = KVSIFT_F32,
                                 .head_stride = in->model->head_dim * sizeof(float)}};
  kvsift_selection kept = {.struct_size = sizeof kept};
  kvsift_cache slots = {.struct_size = sizeof slots};
  if (!add_rows(o, in, (o->sift.info.needs & KVSIFT_NEEDS_KEYS) != 0, why)) return false;
  kvsift_policy *policy = o->sift.policy;
  kvsift_status status = kvsift_select_blocks(policy, in->layer, &query, &kept);
  if (status == KVSIFT_OK) status = kvsift_store_resolve(o->store, in->layer, &kept, &slots);
  if (status == KVSIFT_OK) status = kvsift_decode_attend(policy, in->layer, &query, &slots, &kept, out);
  return status == KVSIFT_OK ? look_ahead(o, in, why) : refuse(o, why);
}

static bool attend(void *self, const attention_input *in, float *out, failure *why) {
  offload *o = self;
  if (!in->prompt) return decode_layer(o, in, out, why);
  return sift_prompt(&o->sift, in, out, true, why) && add_rows(o, in, false, why);
}

static bool advance(void *self, uint32_t tokens, failure *why) {
  return sift_advance(&((offload *)self)->sift, tokens, why);
}

static bool answer_resident(engine *e, const script *asked, const offload *o, generation *run,
                            failure *why) {
  sift resident = {0}, *list[] = {&resident};
  sift_set set = {list, 1, NULL};
  if (!sift_fork(&o->sift, &resident, why)) return false;
  engine_truncate(e, asked->prompt.count - 1);
  e->attention = sift_attention(&set);
  printf("all in memory:");
  bool done = generate(e, asked, true, run, why);
  sift_release(&resident);
  return done;
}

/* The engine's own rows of the prompt are spoilt first: an answer that is right came from the
 * store. */
static bool answer_offloaded(engine *e, const script *asked, offload *o, generation *run,
                             failure *why) {
  cache_spoil(&e->cache);
  engine_truncate(e, asked->prompt.count - 1);
  e->attention = (attention){o, attend, advance};
  printf("offloaded:");
  return generate(e, asked, true, run, why);
}

/* `resident` is null where that was not asked for. */
static bool report(const offload *o, const generation *resident, const generation *offloaded,
                   failure *why) {
  kvsift_store_stats s = {.struct_size = sizeof s};
  kvsift_store_info info = {.struct_size = sizeof info};
  if (kvsift_store_get_stats(o->store, &s) != KVSIFT_OK ||
      kvsift_store_get_info(o->store, &info) != KVSIFT_OK) {
    return refuse(o, why);
  }
  double steps = offloaded->fed.count;
  tiers_print_sizes(info.arena_bytes, info.slots, info.block_tokens, info.slow_bytes);
  tiers_print_counters(&s, offloaded->fed.count);
  printf("  waited a token     %.2f ms\n", (double)s.waited_ns / steps / 1e6);
  printf("  tokens/s           %.1f", steps / offloaded->seconds);
  if (resident == NULL) return puts("") >= 0;
  printf("; all in memory %.1f\n", resident->fed.count / resident->seconds);
  bool same = generation_same(resident, offloaded);
  bool capped = o->config.late_blocks != KVSIFT_STORE_NO_LIMIT;
  printf("  same text          %s\n",
         same ? "yes" : capped ? "no: --late-blocks left some of the cache out" : "NO");
  return same || capped || fail(why, "the offloaded answer differs");
}

bool offload_answer(engine *e, const script *asked, const kvsift_policy_config *chosen,
                    const options *from, failure *why) {
  offload o = {0};
  generation resident = {0}, offloaded = {0};
  kvsift_policy_config config = *chosen;
  double seconds;
  sift_set_geometry(&config, e->model, e->cache.capacity);
  config.calibration_period = 0; /* would read the whole cache */
  bool done = sift_create(&o.sift, &config, why);
  if (done) configure(&o, e, from);
  done = done && create_store(&o, why);
  e->attention = (attention){&o, attend, advance};
  done = done && read_prompt(e, asked, &seconds, why) &&
         (!from->compare || answer_resident(e, asked, &o, &resident, why)) &&
         answer_offloaded(e, asked, &o, &offloaded, why) &&
         report(&o, from->compare ? &resident : NULL, &offloaded, why);
  if (done && from->trace != NULL) done = offload_write_trace(o.store, from->trace, why);
  if (o.store != NULL) kvsift_store_close(o.store);
  sift_release(&o.sift);
  generation_release(&resident);
  generation_release(&offloaded);
  memory_give(o.arena);
  memory_give(o.host);
  return done;
}

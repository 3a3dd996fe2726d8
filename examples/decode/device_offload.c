/* The answer from a cache most of which lies in host memory before the device. */
#include "device.h"
#include "device_cache.h"
#include "device_store.h"
#include "generate.h"
#include "tiers.h"

static bool answer_resident(engine *e, const script *asked, const device *d, generation *run,
                            failure *why) {
  device_cache all = {.rows = 0};
  engine_truncate(e, asked->prompt.count - 1);
  bool done = device_cache_create(&all, d->gpu, &d->sift, &e->cache, why) &&
              device_cache_fill(&all, &e->cache, &d->sift, why);
  if (done) {
    e->attention = device_cache_attention(&all);
    printf("all on the device:");
    done = generate(e, asked, true, run, why);
  }
  device_cache_release(&all);
  return done;
}

/* The engine's own rows of the prompt are spoilt first: an answer that is right came from the
 * store. */
static bool answer_offloaded(engine *e, const script *asked, device_store *store, generation *run,
                             failure *why) {
  engine_truncate(e, asked->prompt.count - 1);
  if (!device_store_begin(store, why)) return false;
  cache_spoil(&e->cache);
  e->attention = device_store_attention(store);
  printf("offloaded:");
  return generate(e, asked, true, run, why);
}

/* A store has no more slots than blocks. */
static uint32_t slots_of(const kvsift_cuda_store_config *c) {
  uint32_t blocks = (c->max_tokens + c->block_tokens - 1) / c->block_tokens;
  return c->kv_heads * (c->fast_blocks < blocks ? c->fast_blocks : blocks);
}

static double speed(const generation *run) { return run->fed.count / run->seconds; }

static bool report(device_store *store, const generation *resident, const generation *offloaded,
                   failure *why) {
  const kvsift_cuda_store_config *c = &store->config;
  kvsift_store_stats stats = {.struct_size = sizeof stats};
  if (!device_store_finish(store, &stats, why)) return false;
  tiers_print_sizes(store->arenas.device_bytes, slots_of(c), c->block_tokens,
                    store->arenas.pinned_bytes);
  tiers_print_counters(&stats, offloaded->fed.count);
  printf("  tokens/s           %.1f", speed(offloaded));
  if (resident == NULL) return puts("") >= 0;
  bool same = generation_same(resident, offloaded);
  printf("; all on the device %.1f\n  same text          %s\n", speed(resident), same ? "yes" : "NO");
  return same || fail(why, "the offloaded answer differs");
}

bool device_offload_answer(engine *e, const script *asked, device *d, const options *from,
                           failure *why) {
  device_store store = {.reader = NULL};
  generation resident = {0}, offloaded = {0};
  double seconds;
  bool done = device_store_create(&store, d->gpu, &d->sift, &e->cache, from->fast_blocks, why);
  e->attention = device_store_reading(&store);
  if (d->products != NULL) e->multiplier = products_multiplier(d->products);
  done = done && read_prompt(e, asked, &seconds, why) &&
         (!from->compare || answer_resident(e, asked, d, &resident, why)) &&
         answer_offloaded(e, asked, &store, &offloaded, why) &&
         report(&store, from->compare ? &resident : NULL, &offloaded, why);
  device_store_release(&store);
  generation_release(&resident);
  generation_release(&offloaded);
  return done;
}

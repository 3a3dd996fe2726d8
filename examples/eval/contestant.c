#include "contestant.h"

#include <string.h>

#include "memory.h"

static void name_contestant(contestant *c) {
  const char *tails[] = {"", " + moments", " + coreset"};
  snprintf(c->name, sizeof c->name, "%s%s %.3g%%", kvsift_method_name(c->method), tails[c->tail],
           100.0 * (double)c->share);
}

static bool create_one(contest *out, const options *base, const model *m, uint32_t capacity,
                       contestant shape, failure *why) {
  options from = *base;
  kvsift_policy_config config;
  contestant *c = &out->list[out->count];
  from.method = shape.method;
  from.tail = shape.tail;
  from.budget_share = shape.share;
  from.budget_tokens = 0;
  *c = shape;
  name_contestant(c);
  if (!options_config(&from, m->layers, &config, why)) return false;
  sift_set_geometry(&config, m, capacity);
  config.dense_tokens = KVSIFT_DENSE_OFF; /* the method is judged, however short the text */
  config.calibration_dense = 0;           /* and within its budget at every step */
  if (!sift_create(&c->sift, &config, why)) return false;
  out->sifts[out->count++] = &c->sift;
  return true;
}

static void create_all(contest *out, const eval_options *from, const model *m, uint32_t capacity) {
  for (uint32_t i = 0; i < from->method_count; i++) {
    for (uint32_t t = 0; t < from->tail_count; t++) {
      for (uint32_t s = 0; s < from->share_count; s++) {
        contestant shape = {
            .method = from->methods[i], .tail = from->tails[t], .share = from->shares[s]};
        failure why;
        bool balance = shape.method == KVSIFT_METHOD_BALANCE; /* is its own tail */
        if (shape.method == KVSIFT_METHOD_FULL || (balance && t > 0)) continue;
        if (balance) shape.tail = KVSIFT_TAIL_BALANCE;
        if (create_one(out, &from->base, m, capacity, shape, &why)) continue;
        fprintf(stderr, "left out: %s: %s\n", out->list[out->count].name, why.text);
      }
    }
  }
}

bool contest_create(contest *out, const eval_options *from, const model *m, uint32_t capacity,
                    failure *why) {
  uint32_t most = 1 + from->method_count * from->tail_count * from->share_count;
  uint64_t floats = (uint64_t)ENGINE_BATCH * m->query_heads * m->head_dim;
  contestant full = {.method = KVSIFT_METHOD_FULL, .share = 1};
  memset(out, 0, sizeof *out);
  out->list = memory_take(most, sizeof *out->list);
  out->sifts = memory_take(most, sizeof(sift *));
  out->unused = memory_take(floats, sizeof(float));
  bool done = out->list != NULL && out->sifts != NULL && out->unused != NULL;
  if (!done) fail(why, "no memory for %u policies", most);
  if (done && create_one(out, &from->base, m, capacity, full, why)) {
    create_all(out, from, m, capacity);
    return true;
  }
  contest_release(out);
  return false;
}

void contest_release(contest *out) {
  for (uint32_t i = 0; i < out->count; i++) sift_release(&out->list[i].sift);
  memory_give(out->list);
  memory_give(out->sifts);
  memory_give(out->unused);
  memset(out, 0, sizeof *out);
}

bool contest_reset(contest *all, failure *why) {
  for (uint32_t i = 0; i < all->count; i++) {
    if (kvsift_policy_reset(all->sifts[i]->policy) != KVSIFT_OK) {
      return fail(why, "%s: %s", all->list[i].name, kvsift_last_error(all->sifts[i]->policy));
    }
  }
  return true;
}

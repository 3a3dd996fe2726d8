#include "compare.h"

#include <string.h>

#include "distribution.h"
#include "memory.h"

static bool count_bytes(contender *c, const engine *e, failure *why) {
  kvsift_stats stats = {.struct_size = sizeof stats};
  if (kvsift_get_stats(c->sift.policy, &stats) != KVSIFT_OK) {
    return fail(why, "%s", kvsift_last_error(c->sift.policy));
  }
  c->cache_bytes = (c->sift.keys_read + c->sift.values_read) * cache_row_bytes(&e->cache);
  c->state_bytes = stats.state_bytes_touched;
  return true;
}

static void use(engine *e, sift_set *set) { e->attention = sift_attention(set); }

/* One prefill that all policies see. */
static bool read_once(engine *e, const script *of, sift **policies, uint32_t count, double *seconds,
                      failure *why) {
  uint64_t floats = (uint64_t)ENGINE_BATCH * e->model->query_heads * e->model->head_dim;
  sift_set set = {policies, count, memory_take(floats, sizeof(float))};
  if (set.unused == NULL) return fail(why, "no memory for %u policies", count);
  use(e, &set);
  bool done = read_prompt(e, of, seconds, why);
  memory_give(set.unused);
  return done;
}

static bool answer_with(engine *e, const script *of, contender *c, const char *title,
                        failure *why) {
  sift *list[] = {&c->sift};
  sift_set set = {list, 1, NULL};
  engine_truncate(e, of->prompt.count - 1);
  use(e, &set);
  printf("%s:", title);
  return generate(e, of, true, &c->run, why) && count_bytes(c, e, why);
}

/* The policy alone, on the tokens of the full run: its next-token distributions against those that
 * full attention had there. */
static bool follow(engine *e, const script *of, comparison *out, sift *policy, failure *why) {
  const generation *full = &out->full.run;
  uint32_t vocabulary = e->model->vocabulary;
  double *logs = memory_take(2 * (uint64_t)vocabulary, sizeof *logs);
  sift_set set = {&policy, 1, NULL};
  bool done = logs != NULL || fail(why, "no memory for %u logits", vocabulary);
  policy->listener = measure_listener(&out->measured);
  engine_truncate(e, of->prompt.count - 1);
  use(e, &set);
  for (uint32_t i = 0; i < full->fed.count && done; i++) {
    done = interrupted() ? fail(why, "interrupted") : engine_step(e, full->fed.tokens[i], why);
    if (!done) break;
    out->steps++;
    out->agreed += likeliest(e->logits, vocabulary) == full->best.tokens[i];
    log_softmax(full->logits + (uint64_t)i * vocabulary, vocabulary, logs);
    log_softmax(e->logits, vocabulary, logs + vocabulary);
    out->divergence += divergence(logs, logs + vocabulary, vocabulary);
  }
  memory_give(logs);
  if (out->steps > 0) out->divergence /= out->steps;
  out->quality = measure_total(&out->measured);
  return done;
}

static bool create_policies(comparison *out, const engine *e, const kvsift_policy_config *chosen,
                            failure *why) {
  kvsift_policy_config config = *chosen;
  sift_set_geometry(&config, e->model, e->cache.capacity);
  if (!sift_create(&out->chosen.sift, &config, why)) return false;
  if (!out->has_full) return true;
  kvsift_policy_config full = {.struct_size = sizeof full};
  kvsift_status status = kvsift_policy_config_init(&full, KVSIFT_METHOD_FULL);
  if (status != KVSIFT_OK) return fail(why, "full attention: %s", kvsift_status_string(status));
  sift_set_geometry(&full, e->model, e->cache.capacity);
  return sift_create(&out->full.sift, &full, why) &&
         measure_create(&out->measured, e->model, e->cache.capacity, why);
}

bool compare(comparison *out, engine *e, const script *of, const kvsift_policy_config *chosen,
             bool with_full, failure *why) {
  memset(out, 0, sizeof *out);
  out->has_full = with_full;
  out->capacity = e->cache.capacity;
  sift *policies[] = {&out->chosen.sift, &out->full.sift};
  sift follower = {0};
  if (!create_policies(out, e, chosen, why)) return false;
  if (!read_once(e, of, policies, with_full ? 2 : 1, &out->prompt_seconds, why)) return false;
  if (!with_full) return answer_with(e, of, &out->chosen, "answer", why);
  bool done = generation_keep_logits(&out->full.run, e, of, why) &&
              sift_fork(&out->chosen.sift, &follower, why) &&
              answer_with(e, of, &out->full, "full attention", why) &&
              answer_with(e, of, &out->chosen, "with the policy", why) &&
              follow(e, of, out, &follower, why);
  sift_release(&follower);
  return done;
}

static void release_contender(contender *c) {
  sift_release(&c->sift);
  generation_release(&c->run);
}

void comparison_release(comparison *out) {
  release_contender(&out->full);
  release_contender(&out->chosen);
  measure_release(&out->measured);
}

#include <errno.h>
#include <string.h>

#include "json.h"
#include "kernels.h"
#include "report.h"

static void write_contender(json *j, const char *key, const contender *c) {
  json_open(j, key, '{');
  json_open(j, "answers", '[');
  for (uint32_t i = 0; i < c->run.answer_count; i++) json_text(j, NULL, c->run.answers[i]);
  json_close(j, ']');
  json_whole(j, "tokens", c->run.fed.count);
  json_number(j, "seconds", c->run.seconds);
  json_whole(j, "cache_bytes_read", c->cache_bytes);
  json_whole(j, "state_bytes_read", c->state_bytes);
  json_whole(j, "arena_bytes", c->sift.arena_bytes);
  json_close(j, '}');
}

static void write_layer(json *j, const quality *q) {
  double count = q->count > 0 ? (double)q->count : 1;
  json_open(j, NULL, '{');
  json_whole(j, "rows", q->count);
  json_number(j, "kept", q->kept / count);
  json_number(j, "recovery", q->recovery / count);
  json_number(j, "ceiling", q->ceiling / count);
  json_number(j, "output_error", q->error / count);
  json_close(j, '}');
}

static void write_setting(json *j, const script *asked, const options *from, const engine *e,
                          const kvsift_policy_config *config) {
  char name[64];
  kvsift_build_info build = {.struct_size = sizeof build};
  options_describe(from, name, sizeof name);
  json_text(j, "model", from->model);
  json_text(j, "method", name);
  json_number(j, "budget_share", config->budget_share);
  json_whole(j, "budget_tokens", config->budget_tokens);
  json_whole(j, "block_tokens", config->block_tokens);
  json_whole(j, "sink_tokens", config->sink_tokens);
  json_whole(j, "local_tokens", config->local_tokens);
  json_whole(j, "dense_layers", config->dense_layers);
  json_whole(j, "seed", config->seed);
  json_whole(j, "prompt_tokens", asked->prompt.count);
  json_whole(j, "threads", workers_count(e->pool));
  json_text(j, "engine_kernels", kernels()->name);
  if (kvsift_get_build_info(&build) == KVSIFT_OK) json_text(j, "kvsift_level", build.level);
}

bool report_write_json(const comparison *of, const script *asked, const options *from,
                       const engine *e, failure *why) {
  FILE *to = fopen(from->json, "w");
  if (to == NULL) return fail(why, "%s: %s", from->json, strerror(errno));
  json j = {.to = to};
  json_open(&j, NULL, '{');
  write_setting(&j, asked, from, e, &of->chosen.sift.config);
  json_number(&j, "prompt_seconds", of->prompt_seconds);
  if (of->has_full) write_contender(&j, "full", &of->full);
  write_contender(&j, "chosen", &of->chosen);
  if (of->has_full) {
    json_whole(&j, "steps", of->steps);
    json_whole(&j, "agreed", of->agreed);
    json_number(&j, "divergence", of->divergence);
    json_open(&j, "layers", '[');
    for (uint32_t i = 0; i < of->measured.layers; i++) {
      quality layer = measure_layer(&of->measured, i);
      write_layer(&j, &layer);
    }
    json_close(&j, ']');
  }
  json_close(&j, '}');
  bool done = ferror(to) == 0;
  done = fclose(to) == 0 && done;
  return done || fail(why, "%s: could not be written to its end", from->json);
}

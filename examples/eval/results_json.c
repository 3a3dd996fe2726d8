#include "results_json.h"

#include <errno.h>
#include <math.h>
#include <string.h>

#include "json.h"

#define Z 1.959964 /* 95% */

/* Wilson's interval for a share. */
static void write_share(json *j, double asked, double right) {
  double share = right / asked, spread = Z * Z / asked;
  double centre = (share + spread / 2) / (1 + spread);
  double half = Z / (1 + spread) * sqrt(share * (1 - share) / asked + spread / (4 * asked));
  json_number(j, "share", share);
  json_number(j, "low", fmax(0, centre - half));
  json_number(j, "high", fmin(1, centre + half));
}

/* A mean over stretches and the interval that their scatter gives; no interval from a single one.
 */
static void write_mean(json *j, const char *name, double count, double sum, double squares) {
  char key[64];
  double mean = sum / count;
  double variance = count > 1 ? fmax(0, squares - count * mean * mean) / (count - 1) : NAN;
  double half = Z * sqrt(variance / count);
  json_number(j, name, mean);
  snprintf(key, sizeof key, "%s_low", name);
  json_number(j, key, mean - half);
  snprintf(key, sizeof key, "%s_high", name);
  json_number(j, key, mean + half);
}

static void write_contestants(json *j, const contest *all) {
  json_open(j, "policies", '[');
  for (uint32_t i = 0; i < all->count; i++) {
    const contestant *c = &all->list[i];
    json_open(j, NULL, '{');
    json_text(j, "name", c->name);
    json_text(j, "method", kvsift_method_name(c->method));
    json_text(j, "tail", eval_tail_names[c->tail]);
    json_number(j, "share", (double)c->share);
    json_whole(j, "block_tokens", c->sift.config.block_tokens);
    json_whole(j, "grouping", c->sift.config.grouping);
    json_whole(j, "arena_bytes", c->sift.arena_bytes);
    json_close(j, '}');
  }
  json_close(j, ']');
}

static void write_cell(json *j, const results *of, const eval_options *from, uint32_t task,
                       uint32_t length, uint32_t depth) {
  for (uint32_t i = 0; i < of->contestants; i++) {
    const cell *c = results_cell(of, task, length, depth, i);
    if (c->asked == 0) continue;
    json_open(j, NULL, '{');
    json_text(j, "task", task_name(task));
    json_whole(j, "length", from->lengths[length]);
    if (task == TASK_NEEDLE) json_number(j, "depth", depth / (double)(DEPTHS - 1));
    json_whole(j, "policy", i);
    json_whole(j, "asked", c->asked);
    json_whole(j, "right", c->right);
    write_share(j, (double)c->asked, (double)c->right);
    json_close(j, '}');
  }
}

static void write_tasks(json *j, const results *of, const eval_options *from) {
  json_open(j, "tasks", '[');
  for (uint32_t task = 0; task < TASK_COUNT; task++) {
    for (uint32_t length = 0; length < of->lengths; length++) {
      for (uint32_t depth = 0; depth < DEPTHS; depth++) {
        write_cell(j, of, from, task, length, depth);
      }
    }
  }
  json_close(j, ']');
}

static void write_text(json *j, const results *of) {
  json_open(j, "text", '[');
  for (uint32_t i = 0; i < of->contestants; i++) {
    const text_sums *t = &of->text[i];
    double windows = (double)t->windows;
    if (t->windows == 0) continue;
    json_open(j, NULL, '{');
    json_whole(j, "policy", i);
    json_whole(j, "windows", t->windows);
    json_whole(j, "tokens", t->tokens);
    write_mean(j, "agreement", windows, t->agreed_mean, t->agreed_square);
    write_mean(j, "divergence", windows, t->divergence_mean, t->divergence_square);
    write_mean(j, "bits_per_byte", windows, t->bits_mean, t->bits_square);
    json_close(j, '}');
  }
  json_close(j, ']');
}

static void write_heads(json *j, const results *of) {
  json_open(j, "heads", '[');
  for (uint64_t i = 0; i < (uint64_t)of->contestants * of->layers * of->query_heads; i++) {
    const quality *q = &of->heads[i];
    double count = (double)q->count;
    if (q->count == 0) continue;
    json_open(j, NULL, '{');
    json_whole(j, "policy", i / of->query_heads / of->layers);
    json_whole(j, "layer", i / of->query_heads % of->layers);
    json_whole(j, "head", i % of->query_heads);
    json_whole(j, "rows", q->count);
    json_number(j, "kept", q->kept / count);
    json_number(j, "recovery", q->recovery / count);
    json_number(j, "ceiling", q->ceiling / count);
    json_number(j, "output_error", q->error / count);
    json_close(j, '}');
  }
  json_close(j, ']');
}

static void write_settings(json *j, const eval_options *from) {
  json_text(j, "model", from->base.model);
  json_text(j, "text_file", from->text);
  json_whole(j, "seed", from->base.seed);
  json_whole(j, "trials", from->trials);
  json_whole(j, "window_tokens", from->window_tokens);
  json_whole(j, "sink_tokens", from->base.sink);
  json_whole(j, "local_tokens", from->base.local);
  json_whole(j, "dense_layers", from->base.dense_layers);
}

bool results_write_json(const results *of, const contest *all, const eval_options *from,
                        failure *why) {
  FILE *to = fopen(from->base.json, "w");
  if (to == NULL) return fail(why, "%s: %s", from->base.json, strerror(errno));
  json j = {.to = to};
  json_open(&j, NULL, '{');
  write_settings(&j, from);
  write_contestants(&j, all);
  write_tasks(&j, of, from);
  write_text(&j, of);
  write_heads(&j, of);
  if (of->drawn->rows > 0) picture_write_json(&j, of->drawn, all);
  json_close(&j, '}');
  bool done = ferror(to) == 0;
  done = fclose(to) == 0 && done;
  return done || fail(why, "%s: could not be written to its end", from->base.json);
}

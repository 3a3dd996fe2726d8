#include "results.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#include "memory.h"

#define LINE_BYTES 8192u /* a picture's row has a character for each block */

cell *results_cell(const results *of, uint32_t task, uint32_t length, uint32_t depth,
                   uint32_t contestant) {
  uint64_t index = ((uint64_t)task * of->lengths + length) * DEPTHS + depth;
  return &of->cells[index * of->contestants + contestant];
}

static void count_answers(results *to, uint32_t task, uint32_t length, uint32_t depth,
                          uint32_t contestant, cell more) {
  if (task >= TASK_COUNT || length >= to->lengths || depth >= DEPTHS ||
      contestant >= to->contestants) {
    return;
  }
  cell *c = results_cell(to, task, length, depth, contestant);
  c->asked += more.asked;
  c->right += more.right;
}

static void count_text(results *to, uint32_t contestant, const text_outcome *more) {
  if (contestant >= to->contestants || more->tokens == 0 || !(more->bytes > 0)) return;
  text_sums *t = &to->text[contestant];
  double tokens = (double)more->tokens, agreed = (double)more->agreed / tokens;
  double divergence = more->divergence / tokens,
         bits = more->nats / more->bytes * 1.4426950408889634;
  t->windows++;
  t->tokens += more->tokens;
  t->agreed += more->agreed;
  t->divergence += more->divergence;
  t->nats += more->nats;
  t->bytes += more->bytes;
  t->agreed_mean += agreed, t->agreed_square += agreed * agreed;
  t->divergence_mean += divergence, t->divergence_square += divergence * divergence;
  t->bits_mean += bits, t->bits_square += bits * bits;
}

static void count_quality(results *to, uint32_t contestant, uint32_t layer, uint32_t head,
                          const quality *more) {
  if (contestant >= to->contestants || layer >= to->layers || head >= to->query_heads) return;
  uint64_t index = ((uint64_t)contestant * to->layers + layer) * to->query_heads + head;
  quality_add(&to->heads[index], more);
}

void results_add_answers(results *to, uint32_t task, uint32_t length, uint32_t depth,
                         uint32_t contestant, cell more) {
  fprintf(to->part, "answers %u %u %u %u %" PRIu64 " %" PRIu64 "\n", task, length, depth,
          contestant, more.asked, more.right);
  count_answers(to, task, length, depth, contestant, more);
}

void results_add_text(results *to, uint32_t contestant, const text_outcome *more) {
  fprintf(to->part, "text %u %" PRIu64 " %" PRIu64 " %.17g %.17g %.17g\n", contestant, more->tokens,
          more->agreed, more->divergence, more->nats, more->bytes);
  count_text(to, contestant, more);
}

void results_add_quality(results *to, uint32_t contestant, const measure *more) {
  for (uint32_t i = 0; i < more->layers * more->query_heads; i++) {
    const quality *q = &more->heads[i];
    uint32_t layer = i / more->query_heads, head = i % more->query_heads;
    if (q->count == 0) continue;
    fprintf(to->part, "quality %u %u %u %" PRIu64 " %.17g %.17g %.17g %.17g\n", contestant, layer,
            head, q->count, q->recovery, q->ceiling, q->error, q->kept);
    count_quality(to, contestant, layer, head, q);
  }
}

void results_keep_picture(results *to) {
  const picture *p = to->drawn;
  for (uint32_t layer = 0; layer < p->layers; layer++) {
    for (uint32_t head = 0; head < p->query_heads; head++) {
      for (uint32_t row = 0; row < p->rows; row++) {
        const char *cells = picture_row(p, layer, head, row);
        if (*cells == 0) continue;
        fprintf(to->part, "row %u %u %u %s\n", layer, head, row, cells);
      }
    }
  }
}

bool results_sample_done(results *to, failure *why) {
  fprintf(to->part, "done %u\n", to->done++);
  if (fflush(to->part) == 0) return true;
  return fail(why, "the results so far cannot be kept: %s", strerror(errno));
}

static void take_line(results *to, char *line) {
  uint32_t a, b, c, d;
  int length = 0;
  cell answers;
  text_outcome text;
  quality q;
  if (sscanf(line, "answers %u %u %u %u %" SCNu64 " %" SCNu64, &a, &b, &c, &d, &answers.asked,
             &answers.right) == 6) {
    count_answers(to, a, b, c, d, answers);
  } else if (sscanf(line, "text %u %" SCNu64 " %" SCNu64 " %lf %lf %lf", &a, &text.tokens,
                    &text.agreed, &text.divergence, &text.nats, &text.bytes) == 6) {
    count_text(to, a, &text);
  } else if (sscanf(line, "quality %u %u %u %" SCNu64 " %lf %lf %lf %lf", &a, &b, &c, &q.count,
                    &q.recovery, &q.ceiling, &q.error, &q.kept) == 8) {
    count_quality(to, a, b, c, &q);
  } else if (sscanf(line, "row %u %u %u %n", &a, &b, &c, &length) == 3) {
    line[strcspn(line, "\n")] = 0;
    picture_set_row(to->drawn, a, b, c, line + length);
  } else if (strncmp(line, "done ", 5) == 0) {
    to->done++;
  }
}

/* Where the last finished sample ends: what follows was cut off by an interruption. */
static long end_of_finished(FILE *part) {
  char line[LINE_BYTES];
  long end = ftell(part);
  while (fgets(line, sizeof line, part) != NULL) {
    if (strncmp(line, "done ", 5) == 0 && strchr(line, '\n') != NULL) end = ftell(part);
  }
  return end;
}

static bool take_over(results *out, const char *path, const char *key, failure *why) {
  char line[LINE_BYTES];
  if (fgets(line, sizeof line, out->part) == NULL) {
    rewind(out->part);
    fprintf(out->part, "%s\n", key);
    return fflush(out->part) == 0 || fail(why, "%s: %s", path, strerror(errno));
  }
  line[strcspn(line, "\n")] = 0;
  if (strcmp(line, key) != 0) {
    return fail(why, "%s is of another run (\"%s\", now \"%s\"); remove it to start afresh", path,
                line, key);
  }
  long start = ftell(out->part), end = end_of_finished(out->part);
  fseek(out->part, start, SEEK_SET);
  while (ftell(out->part) < end && fgets(line, sizeof line, out->part) != NULL)
    take_line(out, line);
  fseek(out->part, end, SEEK_SET);
  if (ftruncate(fileno(out->part), end) != 0) return fail(why, "%s: %s", path, strerror(errno));
  return true;
}

bool results_open(results *out, const char *path, const char *key, const contest *all,
                  const model *m, uint32_t lengths, picture *drawn, failure *why) {
  char name[1024];
  *out = (results){.contestants = all->count,
                   .lengths = lengths,
                   .layers = m->layers,
                   .query_heads = m->query_heads,
                   .drawn = drawn};
  if (snprintf(name, sizeof name, "%s.part", path) >= (int)sizeof name) {
    return fail(why, "%s: the path is too long", path);
  }
  out->cells =
      memory_take((uint64_t)TASK_COUNT * lengths * DEPTHS * all->count, sizeof *out->cells);
  out->text = memory_take(all->count, sizeof *out->text);
  out->heads = memory_take((uint64_t)all->count * m->layers * m->query_heads, sizeof *out->heads);
  bool done = out->cells != NULL && out->text != NULL && out->heads != NULL;
  if (!done) fail(why, "no memory for the results of %u policies", all->count);
  if (done) {
    out->part = fopen(name, "r+");
    if (out->part == NULL) out->part = fopen(name, "w+");
    done = out->part != NULL || fail(why, "%s: %s", name, strerror(errno));
  }
  if (done && take_over(out, name, key, why)) return true;
  results_release(out);
  return false;
}

void results_release(results *out) {
  if (out->part != NULL) fclose(out->part);
  memory_give(out->cells);
  memory_give(out->text);
  memory_give(out->heads);
  memset(out, 0, sizeof *out);
}

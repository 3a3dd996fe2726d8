#include "report.h"

#include <inttypes.h>
#include <string.h>

#define COLUMN 26

static void print_row(const comparison *of, const char *name, const char *full,
                      const char *chosen) {
  printf("  %-28s", name);
  if (of->has_full) printf(" %*s", COLUMN, full);
  printf(" %*s\n", COLUMN, chosen);
}

static double per_step(const contender *c, double amount) {
  return c->run.fed.count > 0 ? amount / c->run.fed.count : 0;
}

static double speed(const contender *c) {
  return c->run.seconds > 0 ? c->run.fed.count / c->run.seconds : 0;
}

static void print_number(const comparison *of, const char *name, const char *format, double full,
                         double chosen) {
  char left[64], right[64];
  snprintf(left, sizeof left, format, full);
  snprintf(right, sizeof right, format, chosen);
  print_row(of, name, left, right);
}

/* One line, cut to what a column shows. */
static void shorten(const char *answer, char *out, uint32_t room) {
  while (*answer == ' ' || *answer == '\n') answer++;
  snprintf(out, room, "%s", answer);
  for (char *c = out; *c != 0; c++) {
    if (*c == '\n') *c = ' ';
  }
}

static void print_answers(const comparison *of, const script *asked) {
  for (uint32_t i = 0; i < of->chosen.run.answer_count; i++) {
    char name[64], left[COLUMN + 1] = "", right[COLUMN + 1];
    const char *expected = asked->turns[i].expected;
    if (expected != NULL) {
      snprintf(name, sizeof name, "answer %" PRIu32 " (planted: %s)", i + 1, expected);
    } else {
      snprintf(name, sizeof name, "answer begins");
    }
    if (of->has_full) shorten(of->full.run.answers[i], left, sizeof left);
    shorten(of->chosen.run.answers[i], right, sizeof right);
    print_row(of, name, left, right);
  }
}

static bool same_answers(const comparison *of) {
  for (uint32_t i = 0; i < of->chosen.run.answer_count; i++) {
    if (strcmp(of->full.run.answers[i], of->chosen.run.answers[i]) != 0) return false;
  }
  return of->full.run.answer_count == of->chosen.run.answer_count;
}

static double share_of_full(const comparison *of, uint64_t bytes) {
  double full = per_step(&of->full, (double)of->full.cache_bytes);
  return full > 0 ? per_step(&of->chosen, (double)bytes) / full : 0;
}

static void print_quality(const comparison *of) {
  double count = of->quality.count > 0 ? (double)of->quality.count : 1;
  if (of->quality.count == 0) {
    puts("  The budget covered everything: no step left a token out.");
    return;
  }
  print_number(of, "tokens attended, per head", "%.1f %%", 100, 100 * of->quality.kept / count);
  print_number(of, "attention mass recovered", "%.1f %%", 100, 100 * of->quality.recovery / count);
  print_number(of, "  best possible blocks", "%.1f %%", 100, 100 * of->quality.ceiling / count);
  print_number(of, "output error of a head", "%.3f", 0, of->quality.error / count);
}

void report_print(const comparison *of, const script *asked, const options *from) {
  char name[64];
  options_describe(from, name, sizeof name);
  printf("\nPrompt: %" PRIu32 " tokens, read in %.2f s. Decoded: %" PRIu32 " tokens%s.\n\n",
         asked->prompt.count, of->prompt_seconds, of->chosen.run.fed.count,
         of->has_full ? " with the method" : "");
  print_row(of, "", "full attention", name);
  print_answers(of, asked);
  print_number(of, "tokens per second", "%.1f", speed(&of->full), speed(&of->chosen));
  print_number(of, "cache KiB read per token", "%.1f",
               per_step(&of->full, (double)of->full.cache_bytes) / 1024,
               per_step(&of->chosen, (double)of->chosen.cache_bytes) / 1024);
  print_number(of, "policy's own KiB per token", "%.1f", 0,
               per_step(&of->chosen, (double)of->chosen.state_bytes) / 1024);
  if (!of->has_full) return;
  const contender *chosen = &of->chosen;
  print_number(of, "share of the cache read", "%.1f %%", 100,
               100 * share_of_full(of, chosen->cache_bytes));
  print_number(of, "  with the policy's own", "%.1f %%", 100,
               100 * share_of_full(of, chosen->cache_bytes + chosen->state_bytes));
  print_quality(of);
  double steps = of->steps > 0 ? of->steps : 1;
  print_number(of, "likeliest token agrees", "%.1f %%", 100, 100 * of->agreed / steps);
  print_number(of, "KL of next token, nats", "%.4f", 0, of->divergence);
  puts(same_answers(of) ? "\nThe answers are the same." : "\nThe answers differ.");
}

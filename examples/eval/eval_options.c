#include "eval_options.h"

#include <stdlib.h>
#include <string.h>

const char *const eval_tail_names[MOST_TAILS] = {"none", "moments", "balance"};

static const char *const help[] = {
    "Holds the methods against full attention on one model, and writes one JSON file.\n\n"
    "usage: kvsift-eval --text FILE --json FILE [options]\n\n"
    "  --text FILE          text the model was not trained on\n"
    "  --json FILE          where the results go; FILE.part keeps what is done so far: after an\n"
    "                       interruption the same command goes on from there\n"
    "  --model FILE         GGUF file                          (default: the example model)\n"
    "  --lengths A,B        contexts of the tasks, in tokens   (default: 1024,2048)\n"
    "  --trials N           samples of each task, length and depth (default: 8)\n",
    "  --windows N          stretches of text                  (default: 8)\n"
    "  --window-tokens N    tokens decoded in each             (default: 128)\n"
    "  --methods A,B        default: every method but full\n"
    "  --tails A,B          none, moments, balance             (default: none,moments)\n"
    "  --budgets A,B        shares of the context              (default: 1/16,1/8,1/4)\n"
    "  --kv-type, --moments, --threads, --seed, --block, --grouping, --sink, --local, --dense-layers\n"
    "                       as in the decode loop, for every method alike (default: 4 sinks, 16\n"
    "                       local tokens, no dense layers, else the method's)\n"};

void eval_options_print_help(void) {
  for (unsigned i = 0; i < sizeof help / sizeof *help; i++) fputs(help[i], stdout);
}

/* Calls `take` with each part of a list like "a,b". */
static bool each_part(eval_options *out, const char *option, const char *list,
                      bool (*take)(eval_options *, const char *, const char *, failure *),
                      failure *why) {
  char part[64];
  for (const char *at = list;; at += strcspn(at, ",") + 1) {
    size_t length = strcspn(at, ",");
    if (length == 0 || length >= sizeof part) {
      return fail(why, "%s is \"%s\"; expected a list such as a,b", option, list);
    }
    memcpy(part, at, length);
    part[length] = 0;
    if (!take(out, option, part, why)) return false;
    if (at[length] == 0) return true;
  }
}

static bool too_many(const char *option, uint32_t most, failure *why) {
  return fail(why, "%s lists more than %u", option, most);
}

static bool take_length(eval_options *out, const char *option, const char *text, failure *why) {
  char *end;
  unsigned long length = strtoul(text, &end, 10);
  if (*end != 0 || length < 256 || length > KVSIFT_MAX_TOKENS) {
    return fail(why, "%s has \"%s\"; expected 256 tokens or more", option, text);
  }
  if (out->length_count == MOST_LENGTHS) return too_many(option, MOST_LENGTHS, why);
  out->lengths[out->length_count++] = (uint32_t)length;
  return true;
}

static bool take_method(eval_options *out, const char *option, const char *text, failure *why) {
  kvsift_method method;
  if (kvsift_method_from_name(text, &method) != KVSIFT_OK) {
    return fail(why, "%s has \"%s\", which is no method", option, text);
  }
  if (out->method_count == KVSIFT_METHOD_COUNT) return too_many(option, KVSIFT_METHOD_COUNT, why);
  out->methods[out->method_count++] = method;
  return true;
}

static bool take_tail(eval_options *out, const char *option, const char *text, failure *why) {
  uint32_t tail = 0;
  while (tail < MOST_TAILS && strcmp(eval_tail_names[tail], text) != 0) tail++;
  if (tail == MOST_TAILS) return fail(why, "%s has \"%s\", which is no tail", option, text);
  if (out->tail_count == MOST_TAILS) return too_many(option, MOST_TAILS, why);
  out->tails[out->tail_count++] = tail;
  return true;
}

static bool take_share(eval_options *out, const char *option, const char *text, failure *why) {
  options parsed;
  char *arguments[] = {"", "--budget", (char *)(uintptr_t)text};
  if (!options_read(&parsed, 3, arguments, why)) return false;
  if (parsed.budget_share == 0) return fail(why, "%s has \"%s\"; expected a share", option, text);
  if (out->share_count == MOST_SHARES) return too_many(option, MOST_SHARES, why);
  out->shares[out->share_count++] = parsed.budget_share;
  return true;
}

static bool take_count(const char *option, const char *text, uint32_t *to, failure *why) {
  char *end;
  unsigned long count = strtoul(text, &end, 10);
  if (*end != 0 || end == text || count > 100000) {
    return fail(why, "%s is \"%s\"; expected a number", option, text);
  }
  *to = (uint32_t)count;
  return true;
}

/* Takes an option of ours; *known tells whether it was one. */
static bool read_own(eval_options *out, const char *name, const char *value, bool *known,
                     failure *why) {
  *known = true;
  if (strcmp(name, "--text") == 0) return out->text = value, true;
  if (strcmp(name, "--lengths") == 0) return each_part(out, name, value, take_length, why);
  if (strcmp(name, "--methods") == 0) return each_part(out, name, value, take_method, why);
  if (strcmp(name, "--tails") == 0) return each_part(out, name, value, take_tail, why);
  if (strcmp(name, "--budgets") == 0) return each_part(out, name, value, take_share, why);
  if (strcmp(name, "--trials") == 0) return take_count(name, value, &out->trials, why);
  if (strcmp(name, "--windows") == 0) return take_count(name, value, &out->windows, why);
  if (strcmp(name, "--window-tokens") == 0)
    return take_count(name, value, &out->window_tokens, why);
  *known = false;
  return true;
}

static void set_default_lists(eval_options *out) {
  if (out->length_count == 0) {
    out->lengths[out->length_count++] = 1024;
    out->lengths[out->length_count++] = 2048;
  }
  if (out->method_count == 0) {
    for (uint32_t m = 1; m < KVSIFT_METHOD_COUNT; m++) out->methods[out->method_count++] = m;
  }
  if (out->tail_count == 0) {
    out->tails[out->tail_count++] = KVSIFT_TAIL_NONE;
    out->tails[out->tail_count++] = KVSIFT_TAIL_MOMENTS;
  }
  if (out->share_count == 0) {
    for (uint32_t below = 16; below >= 4; below /= 2) {
      out->shares[out->share_count++] = 1.0f / (float)below;
    }
  }
}

/* The same few sinks and local tokens for all, so that the smallest budgets still leave a choice.
 */
static void set_default_policy(options *base) {
  if (base->sink == UNSET) base->sink = 4;
  if (base->local == UNSET) base->local = 16;
  if (base->dense_layers == UNSET) base->dense_layers = 0;
}

bool eval_options_read(eval_options *out, int count, char **arguments, failure *why) {
  char *left[64] = {"kvsift-eval"};
  int left_count = 1;
  memset(out, 0, sizeof *out);
  out->trials = 8, out->windows = 8, out->window_tokens = 128;
  for (int i = 1; i < count; i++) {
    bool known = false;
    if (i + 1 < count && !read_own(out, arguments[i], arguments[i + 1], &known, why)) return false;
    if (known) {
      i++;
    } else if (left_count < 64) {
      left[left_count++] = arguments[i];
    }
  }
  if (!options_read(&out->base, left_count, left, why)) return false;
  set_default_lists(out);
  set_default_policy(&out->base);
  if (out->base.help) return true;
  if (out->text == NULL) return fail(why, "--text is needed; --help tells more");
  if (out->base.json == NULL) return fail(why, "--json is needed; --help tells more");
  return true;
}

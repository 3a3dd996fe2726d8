#include "options.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "count.h"

#ifndef DEFAULT_MODEL
#define DEFAULT_MODEL "examples/model/kvsift-tiny.gguf"
#endif

static const char *const tails[] = {"none", "moments", "balance"};
static const char *const moments[] = {"f16", "i8"};
static const char *const attentions[] = {"exact", "tensor"};
static const char *const groupings[] = {"query-head", "mean", "max"};
static const char *const devices[] = {"cpu", "cuda"};
static const char *const types[] = {"f32", "f16", "bf16", "i8"};

uint32_t name_index(const char *const *names, uint32_t count, const char *name) {
  for (uint32_t i = 0; i < count; i++) {
    if (strcmp(names[i], name) == 0) return i;
  }
  return UNSET;
}

static bool read_name(const char *option, const char *text, const char *const *names,
                      uint32_t count, uint32_t *out, failure *why) {
  *out = name_index(names, count, text);
  if (*out != UNSET) return true;
  char all[160] = "";
  for (uint32_t i = 0; i < count; i++) {
    snprintf(all + strlen(all), sizeof all - strlen(all), "%s%s", i == 0 ? "" : ", ", names[i]);
  }
  return fail(why, "%s is \"%s\"; expected one of %s", option, text, all);
}

static bool read_u32(const char *option, const char *text, uint32_t *out, failure *why) {
  uint64_t number;
  if (!read_count(option, text, KVSIFT_MAX_TOKENS, &number, why)) return false;
  *out = (uint32_t)number;
  return true;
}

/* "256" is tokens; "1/8", "12%" and "0.125" are shares. */
static bool read_budget(options *out, const char *text, failure *why) {
  char *end;
  double number = strtod(text, &end), share = 0;
  bool is_share = *end == '%' || *end == '/' || (*end == 0 && strchr(text, '.') != NULL);
  if (!is_share) {
    out->budget_share = 0;
    return read_u32("--budget", text, &out->budget_tokens, why);
  }
  if (*end == '%' && end[1] == 0) share = number / 100;
  if (*end == 0) share = number;
  if (*end == '/') {
    double below = strtod(end + 1, &end);
    if (*end == 0 && below > 0) share = number / below;
  }
  out->budget_tokens = 0;
  out->budget_share = (float)share;
  if (share > 0 && share <= 1) return true;
  return fail(why, "--budget is \"%s\"; expected tokens (256) or a share (1/8, 12%%, 0.125)", text);
}

static bool read_share(const char *option, const char *text, float *out, failure *why) {
  char *end;
  *out = strtof(text, &end);
  if (end != text && *end == 0 && *out >= 0 && *out <= 1) return true;
  return fail(why, "%s is \"%s\"; expected a number from 0 to 1", option, text);
}

static bool read_method(options *out, const char *text, failure *why) {
  if (kvsift_method_from_name(text, &out->method) == KVSIFT_OK) return true;
  char all[256] = "";
  for (uint32_t i = 0; i < KVSIFT_METHOD_COUNT; i++) {
    snprintf(all + strlen(all), sizeof all - strlen(all), "%s%s", i == 0 ? "" : ", ",
             kvsift_method_name(i));
  }
  return fail(why, "--method is \"%s\"; expected one of %s", text, all);
}

static bool read_text(options *out, const char *name, const char *value, bool *known) {
  const struct {
    const char *name;
    const char **to;
  } texts[] = {{"--model", &out->model},
               {"--prompt", &out->prompt},
               {"--file", &out->file},
               {"--json", &out->json},
               {"--dump-rows", &out->dump_rows},
               {"--offload", &out->offload},
               {"--trace", &out->trace}};
  for (uint32_t i = 0; i < sizeof texts / sizeof *texts; i++) {
    if (strcmp(texts[i].name, name) != 0) continue;
    *texts[i].to = value;
    return *known = true;
  }
  return true;
}

/* The first token of an answer comes with the prompt's last one, so none cannot be asked for. */
static bool read_tokens(options *out, const char *text, failure *why) {
  if (!read_u32("--tokens", text, &out->tokens, why)) return false;
  return out->tokens > 0 || fail(why, "--tokens is 0; expected 1 or more");
}

static bool read_number(options *out, const char *name, const char *value, bool *known,
                        failure *why) {
  const struct {
    const char *name;
    uint32_t *to;
  } numbers[] = {{"--threads", &out->threads},
                 {"--block", &out->block},   {"--sink", &out->sink},
                 {"--local", &out->local},   {"--dense-layers", &out->dense_layers},
                 {"--fast-blocks", &out->fast_blocks},
                 {"--late-blocks", &out->late_blocks}};
  for (uint32_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
    if (strcmp(numbers[i].name, name) != 0) continue;
    *known = true;
    return read_u32(name, value, numbers[i].to, why);
  }
  return true;
}

static bool read_choice(options *out, const char *name, const char *value, bool *known,
                        failure *why) {
  *known = true;
  if (strcmp(name, "--tokens") == 0) return read_tokens(out, value, why);
  if (strcmp(name, "--method") == 0) return read_method(out, value, why);
  if (strcmp(name, "--budget") == 0) return read_budget(out, value, why);
  if (strcmp(name, "--tail") == 0) return read_name(name, value, tails, 3, &out->tail, why);
  if (strcmp(name, "--moments") == 0) {
    uint32_t kind;
    bool done = read_name(name, value, moments, 2, &kind, why);
    out->moments = done && kind == 1 ? KVSIFT_I8 : KVSIFT_F16;
    return done;
  }
  if (strcmp(name, "--grouping") == 0) {
    return read_name(name, value, groupings, 3, &out->grouping, why);
  }
  if (strcmp(name, "--kv-type") == 0)
    return read_name(name, value, types, 4, &out->cache_type, why);
  if (strcmp(name, "--device") == 0) {
    uint32_t device;
    bool done = read_name(name, value, devices, 2, &device, why);
    out->on_device = done && device == 1;
    return done;
  }
  if (strcmp(name, "--attention") == 0)
    return read_name(name, value, attentions, 2, &out->tensor_attention, why);
  if (strcmp(name, "--target-mass") == 0) return read_share(name, value, &out->target_mass, why);
  if (strcmp(name, "--seed") == 0) return read_count(name, value, UINT64_MAX, &out->seed, why);
  *known = false;
  return true;
}

static bool read_pair(options *out, const char *name, const char *value, failure *why) {
  bool known = false;
  if (!read_text(out, name, value, &known)) return false;
  if (!known && !read_number(out, name, value, &known, why)) return false;
  if (!known && !read_choice(out, name, value, &known, why)) return false;
  return known || fail(why, "there is no option %s; --help lists them", name);
}

static bool check_device(const options *from, failure *why) {
  if (from->dump_rows != NULL || from->json != NULL)
    return fail(why, "--device cuda goes without --dump-rows and --json");
  if (from->offload != NULL && strcmp(from->offload, "host") != 0)
    return fail(why, "--device cuda offloads to host memory alone: --offload host, not %s",
                from->offload);
  if (from->trace != NULL)
    return fail(why, "--device cuda goes without --trace: the device's store keeps no times");
  if (from->late_blocks != UNSET) return fail(why, "--device cuda goes without --late-blocks");
  return true;
}

/* What is written has no figures of a store. */
static bool check_written(const options *from, failure *why) {
  if (from->dump_rows != NULL && from->json != NULL)
    return fail(why, "--dump-rows goes without --json: it stops before there are figures");
  if (from->offload != NULL && from->dump_rows != NULL)
    return fail(why, "--offload goes without --dump-rows, which reads the whole cache");
  if (from->offload != NULL && from->json != NULL)
    return fail(why, "--offload goes without --json, whose figures are those of a cache in memory");
  return true;
}

bool options_read(options *out, int count, char **arguments, failure *why) {
  *out = (options){.model = DEFAULT_MODEL,
                   .tokens = UNSET,
                   .method = KVSIFT_METHOD_PAGE_STATS,
                   .budget_share = 0.125f,
                   .tail = UNSET,
                   .moments = UNSET,
                   .tensor_attention = UNSET,
                   .grouping = UNSET,
                   .block = UNSET,
                   .sink = UNSET,
                   .local = UNSET,
                   .dense_layers = UNSET,
                   .fast_blocks = UNSET,
                   .late_blocks = UNSET,
                   .cache_type = KVSIFT_F16,
                   .compare = true};
  for (int i = 1; i < count; i++) {
    const char *name = arguments[i];
    if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0) {
      out->help = true;
    } else if (strcmp(name, "--compare") == 0) {
      out->compare = true;
    } else if (strcmp(name, "--no-compare") == 0) {
      out->compare = false;
    } else if (strncmp(name, "--", 2) != 0) {
      return fail(why, "\"%s\" is not an option; --help lists them", name);
    } else if (i + 1 == count) {
      return fail(why, "%s needs a value", name);
    } else if (!read_pair(out, name, arguments[++i], why)) {
      return false;
    }
  }
  if (out->prompt != NULL && out->file != NULL)
    return fail(why, "give --prompt or --file, not both");
  if (out->offload == NULL &&
      (out->trace != NULL || out->fast_blocks != UNSET || out->late_blocks != UNSET))
    return fail(why, "--trace, --fast-blocks and --late-blocks need --offload");
  if (!out->on_device && out->tensor_attention != UNSET)
    return fail(why, "--attention needs --device cuda");
  return (!out->on_device || check_device(out, why)) && check_written(out, why);
}

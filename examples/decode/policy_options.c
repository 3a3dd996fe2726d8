/* From options to a policy's configuration. */
#include <string.h>

#include "options.h"

static void set(uint32_t *field, uint32_t value) {
  if (value != UNSET) *field = value;
}

/* What is always kept must fit the budget in tokens; a share governs longer contexts. */
static bool set_budget(const options *from, kvsift_policy_config *out, failure *why) {
  bool votes = out->method == KVSIFT_METHOD_SNAPKV || out->method == KVSIFT_METHOD_PYRAMIDKV;
  uint32_t fixed = out->sink_tokens + out->local_tokens;
  if (votes && fixed < out->sink_tokens + out->window) fixed = out->sink_tokens + out->window;
  if (fixed < out->block_tokens) fixed = out->block_tokens;
  out->budget_share = from->budget_share;
  out->budget_tokens = from->budget_share > 0 ? fixed : from->budget_tokens;
  if (out->budget_tokens >= fixed || out->method == KVSIFT_METHOD_FULL) return true;
  return fail(why,
              "--budget is %u tokens; %s always reads %u (--sink, --local and --block change that)",
              from->budget_tokens, kvsift_method_name(from->method), fixed);
}

/* Methods leave the first two of some thirty layers dense; of a few layers none is. */
static uint32_t usual_dense_layers(uint32_t methods_own, uint32_t layers) {
  return methods_own < layers / 16 ? methods_own : layers / 16;
}

bool options_config(const options *from, uint32_t layers, kvsift_policy_config *out, failure *why) {
  memset(out, 0, sizeof *out);
  out->struct_size = sizeof *out;
  kvsift_status status = kvsift_policy_config_init(out, from->method);
  if (status != KVSIFT_OK) {
    return fail(why, "method %u: %s", from->method, kvsift_status_string(status));
  }
  bool whole_pages = out->block_tokens == out->page_tokens;
  set(&out->block_tokens, from->block);
  if (whole_pages) out->page_tokens = out->block_tokens;
  set(&out->sink_tokens, from->sink);
  set(&out->local_tokens, from->local);
  out->dense_layers = usual_dense_layers(out->dense_layers, layers);
  set(&out->dense_layers, from->dense_layers);
  if (from->method == KVSIFT_METHOD_PAGE_STATS) {
    out->tail = KVSIFT_TAIL_MOMENTS;
    out->grouping = KVSIFT_GROUP_MEAN; /* what query heads share is read once */
  }
  set(&out->grouping, from->grouping);
  set(&out->tail, from->tail);
  set(&out->moments_type, from->moments);
  set(&out->tensor_attention, from->tensor_attention);
  if (from->target_mass > 0) out->target_mass = from->target_mass;
  out->seed = from->seed;
  if (from->offload != NULL && out->tail == KVSIFT_TAIL_BALANCE)
    return fail(why, "--offload goes without a coreset, whose rows lie all over the cache");
  return set_budget(from, out, why);
}

void options_describe(const options *from, char *text, uint32_t room) {
  kvsift_policy_config config;
  failure ignored;
  bool tail = options_config(from, 1, &config, &ignored) && config.tail != KVSIFT_TAIL_NONE;
  const char *tail_name = config.tail == KVSIFT_TAIL_MOMENTS ? " + moments" : " + coreset";
  snprintf(text, room, "%s%s", kvsift_method_name(from->method), tail ? tail_name : "");
}

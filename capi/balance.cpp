// <kvsift/balance.h>: compressing once, and the plain estimator.
#include "balance/compress.h"
#include "balance/estimator.h"
#include "balance/importance.h"
#include "balance_checks.h"

namespace kvsift {
namespace {

kvsift_status check_config(const kvsift_balance_config *config, BalancePlan *plan) {
  if (config == nullptr) return KVSIFT_INVALID_ARGUMENT;
  if (config->struct_size < sizeof *config) return KVSIFT_INVALID_STRUCT_SIZE;
  if (kvsift_status s = settle_balance(*config, plan)) return s;
  if (config->form != KVSIFT_BALANCE_CUBLAS) return KVSIFT_OK;
  return fail(config->error, KVSIFT_UNSUPPORTED, "form is ", config->form,
              ": by cuBLASLt on a CUDA device only (kvsift_cuda_balance_compress)");
}

kvsift_status check_tokens(const BalancePlan &plan, std::uint32_t tokens) {
  if (tokens < 1 || tokens > KVSIFT_MAX_TOKENS) {
    return fail(plan.c.error, KVSIFT_INVALID_ARGUMENT, "tokens is ", tokens, ", must be 1 to ",
                KVSIFT_MAX_TOKENS);
  }
  if (tokens >> plan.c.halvings == 0) {
    return fail(plan.c.error, KVSIFT_INVALID_ARGUMENT, plan.c.halvings,
                " halvings leave nothing of ", tokens, " tokens");
  }
  return KVSIFT_OK;
}

// Numbers enough for every halving, each within [0, 1).
kvsift_status check_uniforms(const BalancePlan &plan, std::uint32_t tokens) {
  if (plan.c.uniforms == nullptr) return KVSIFT_OK;
  const std::uint32_t group = group_of(plan, tokens);
  std::uint64_t needed = 0;
  for (std::uint32_t t = 0; t < plan.c.halvings; ++t)
    needed += std::uint64_t{((tokens >> t) + group - 1) / group} * group;
  if (plan.c.uniform_count < needed) {
    return fail(plan.c.error, KVSIFT_INVALID_ARGUMENT, "uniform_count is ", plan.c.uniform_count,
                ", must be ", needed);
  }
  for (std::uint64_t i = 0; i < needed; ++i) {
    if (plan.c.uniforms[i] >= 0.0f && plan.c.uniforms[i] < 1.0f) continue;
    return fail(plan.c.error, KVSIFT_INVALID_ARGUMENT, "uniforms[", i, "] is ", plan.c.uniforms[i],
                ", must be in [0, 1)");
  }
  return KVSIFT_OK;
}

kvsift_status check_importance(const BalancePlan &plan, kvsift_range range) {
  if (plan.c.form != KVSIFT_BALANCE_GRADED) return KVSIFT_OK;
  if (plan.c.importance == nullptr) {
    return fail(plan.c.error, KVSIFT_INVALID_ARGUMENT,
                "importance is null, the graded form needs it");
  }
  for (std::uint32_t i = range.begin; i < range.end; ++i) {
    const float x = plan.c.importance[i];
    if (x >= 0.0f && x - x == 0.0f) continue;
    return fail(plan.c.error, KVSIFT_NOT_FINITE, "importance[", i, "] is ", x,
                ", must be finite and at least 0");
  }
  return KVSIFT_OK;
}

struct Output {
  std::uint32_t *index;
  float *weight;
  std::uint32_t capacity;
  std::uint32_t *count;
};

kvsift_status check_output(const BalancePlan &plan, std::uint32_t tokens, const Output &out,
                           const kvsift_balance_stats *stats) {
  if (out.index == nullptr || out.weight == nullptr || out.count == nullptr) {
    return fail(plan.c.error, KVSIFT_INVALID_ARGUMENT, "index, weight or count is null");
  }
  const std::uint32_t most = plan.c.guard != 0 ? tokens : tokens >> plan.c.halvings;
  if (out.capacity < most) {
    return fail(plan.c.error, KVSIFT_INVALID_ARGUMENT, "capacity is ", out.capacity,
                ", must be at least ", most);
  }
  if (stats != nullptr && stats->struct_size < sizeof *stats) {
    return fail(plan.c.error, KVSIFT_INVALID_STRUCT_SIZE, "stats.struct_size is ",
                stats->struct_size);
  }
  return KVSIFT_OK;
}

kvsift_status check_scratch(const BalancePlan &plan, std::uint32_t tokens, const void *scratch,
                            std::uint64_t bytes, CompressPlaces *places) {
  Layout layout(bytes);
  *places = lay_out_compress(&layout, plan, tokens);
  kvsift_status status = layout.check(plan.c.error);
  if (status != KVSIFT_OK) return status;
  if (scratch == nullptr) return fail(plan.c.error, KVSIFT_INVALID_ARGUMENT, "scratch is null");
  if (reinterpret_cast<std::uintptr_t>(scratch) % KVSIFT_ARENA_ALIGNMENT != 0) {
    return fail(plan.c.error, KVSIFT_MISALIGNED, "scratch must start at a multiple of ",
                KVSIFT_ARENA_ALIGNMENT);
  }
  return KVSIFT_OK;
}

void write_out(const CompressJob &job, const Output &out) {
  const float *weight_of = job.places.weight_of.in(job.scratch);
  std::uint32_t kept = 0;
  for (std::uint32_t i = 0; i < job.range.end - job.range.begin; ++i) {
    if (weight_of[i] == 0.0f) continue;
    out.index[kept] = job.range.begin + i;
    out.weight[kept++] = weight_of[i];
  }
  *out.count = kept;
}

void add_counters(const BalanceCounters &counters, kvsift_balance_stats *stats) {
  stats->tokens += counters.tokens;
  stats->groups += counters.groups;
  stats->failures += counters.failures;
  stats->saturated += counters.saturated;
  stats->guarded += counters.guarded;
  stats->dropped += counters.dropped;
}

kvsift_status check_queries(std::uint32_t head_dim, const kvsift_query *queries,
                            std::uint32_t group, const kvsift_cache *cache, kvsift_error *error) {
  if (queries == nullptr || cache == nullptr)
    return fail(error, KVSIFT_INVALID_ARGUMENT, "queries or cache is null");
  if (queries->struct_size < sizeof *queries) {
    return fail(error, KVSIFT_INVALID_STRUCT_SIZE, "queries->struct_size is ",
                queries->struct_size);
  }
  if (head_dim < 1 || head_dim > KVSIFT_MAX_HEAD_DIM || group < 1 || group > KVSIFT_MAX_GROUP) {
    return fail(error, KVSIFT_INVALID_ARGUMENT, "head_dim is ", head_dim, ", group is ", group);
  }
  if (queries->rows < 1 || queries->rows > queries->tokens) {
    return fail(error, KVSIFT_INVALID_ARGUMENT, "queries->rows is ", queries->rows,
                ", must be 1 to tokens, ", queries->tokens);
  }
  const kvsift_range range{0, queries->tokens};
  kvsift_status status = check_balance_cache(cache, queries->first_kv_head, range, error);
  if (status == KVSIFT_OK) status = check_balance_view(&queries->view, "queries->view", error);
  const Kernels &k = *kernels(best_level());
  for (std::uint32_t g = 0; g < group && status == KVSIFT_OK; ++g) {
    const HeadRows rows{&queries->view, nullptr, 0, queries->first_kv_head * group + g};
    status = check_balance_rows(k, rows, kvsift_range{0, queries->rows}, head_dim, "query", error);
  }
  if (status != KVSIFT_OK) return status;
  return check_balance_rows(k, balance_rows(cache, &cache->keys, queries->first_kv_head), range,
                            head_dim, "key", error);
}

kvsift_status check_scale(float scale, kvsift_error *error) {
  if (scale - scale == 0.0f) return KVSIFT_OK;
  return fail(error, KVSIFT_NOT_FINITE, "scale is ", scale, ", must be finite");
}

// What the rows of a cache came to: NaN and infinity in them, and logits that overflow, show here.
kvsift_status check_result(const char *name, const float *x, std::uint32_t count, kvsift_error *error) {
  for (std::uint32_t i = 0; i < count; ++i) {
    if (x[i] - x[i] == 0.0f) continue;
    return fail(error, KVSIFT_NOT_FINITE, name, "[", i, "] is ", x[i],
                ": keys, values or the query hold NaN or infinity, or overflow");
  }
  return KVSIFT_OK;
}

// Indices within the cache, weights finite and not negative.
kvsift_status check_set(const kvsift_weighted *set, const char *name, std::uint32_t tokens,
                        kvsift_error *error) {
  if (set->count == 0) return KVSIFT_OK;
  if (set->index == nullptr || set->weight == nullptr) {
    return fail(error, KVSIFT_INVALID_ARGUMENT, name, ".index or .weight is null");
  }
  for (std::uint32_t i = 0; i < set->count; ++i) {
    if (set->index[i] >= tokens) {
      return fail(error, KVSIFT_INVALID_ARGUMENT, name, ".index[", i, "] is ", set->index[i],
                  " of ", tokens, " tokens");
    }
    const float w = set->weight[i];
    if (!(w >= 0.0f) || w - w != 0.0f) {
      return fail(error, KVSIFT_INVALID_ARGUMENT, name, ".weight[", i, "] is ", w,
                  ", must be finite and at least 0");
    }
  }
  return KVSIFT_OK;
}

}  // namespace
}  // namespace kvsift

using namespace kvsift;

kvsift_status kvsift_balance_config_init(kvsift_balance_config *config, uint32_t form) {
  if (config == nullptr || form > KVSIFT_BALANCE_CUBLAS) return KVSIFT_INVALID_ARGUMENT;
  if (config->struct_size < sizeof *config) return KVSIFT_INVALID_STRUCT_SIZE;
  balance_defaults(form, config);
  return KVSIFT_OK;
}

kvsift_status kvsift_balance_scratch_size(const kvsift_balance_config *config, uint32_t tokens,
                                          uint64_t *bytes) {
  BalancePlan plan;
  kvsift_status status = check_config(config, &plan);
  if (status == KVSIFT_OK) status = check_tokens(plan, tokens);
  if (status != KVSIFT_OK) return status;
  if (bytes == nullptr) return fail(config->error, KVSIFT_INVALID_ARGUMENT, "bytes is null");
  Layout layout;
  lay_out_compress(&layout, plan, tokens);
  *bytes = layout.used();
  return KVSIFT_OK;
}

kvsift_status kvsift_balance_compress(const kvsift_balance_config *config,
                                      const kvsift_cache *cache, uint32_t head, kvsift_range range,
                                      void *scratch, uint64_t scratch_bytes, uint32_t *index,
                                      float *weight, uint32_t capacity, uint32_t *count,
                                      kvsift_balance_stats *stats) {
  BalancePlan plan;
  kvsift_status status = check_config(config, &plan);
  if (status != KVSIFT_OK) return status;
  const std::uint32_t tokens = range.end - range.begin;
  const Output out{index, weight, capacity, count};
  CompressPlaces places;
  status = check_balance_cache(cache, head, range, config->error);
  if (status == KVSIFT_OK) status = check_tokens(plan, tokens);
  if (status == KVSIFT_OK) status = check_uniforms(plan, tokens);
  if (status == KVSIFT_OK) status = check_importance(plan, range);
  if (status == KVSIFT_OK) status = check_output(plan, tokens, out, stats);
  if (status == KVSIFT_OK) status = check_scratch(plan, tokens, scratch, scratch_bytes, &places);
  if (status != KVSIFT_OK) return status;

  const Kernels &k = *kernels(best_level());
  const BalanceSource source{balance_rows(cache, &cache->keys, head),
                             balance_rows(cache, &cache->values, head), nullptr, head, true};
  status = check_balance_rows(k, source.keys, range, plan.c.head_dim, "key", config->error);
  if (status == KVSIFT_OK)
    status = check_balance_rows(k, source.values, range, plan.c.head_dim, "value", config->error);
  if (status != KVSIFT_OK) return status;
  BalanceCounters counters{};
  const CompressJob job{plan, k, places, scratch, source, range, &counters, tokens};
  compress(job);
  write_out(job, out);
  if (stats != nullptr) add_counters(counters, stats);
  return KVSIFT_OK;
}

kvsift_status kvsift_balance_importance(uint32_t head_dim, float scale, const kvsift_query *queries,
                                        uint32_t group, const kvsift_cache *cache, float *row,
                                        float *importance, kvsift_error *error) {
  const kvsift_status status = check_queries(head_dim, queries, group, cache, error);
  if (status != KVSIFT_OK) return status;
  if (row == nullptr || importance == nullptr) {
    return fail(error, KVSIFT_INVALID_ARGUMENT, "row or importance is null");
  }
  if (kvsift_status s = check_scale(scale, error)) return s;
  if (scale == 0.0f) scale = 1.0f / __builtin_sqrtf(static_cast<float>(head_dim));
  const Kernels &k = *kernels(best_level());
  const std::uint32_t head = queries->first_kv_head, rows = queries->rows;
  const HeadRows keys = balance_rows(cache, &cache->keys, head);
  for (std::uint32_t i = 0; i < queries->tokens; ++i) importance[i] = 0.0f;
  for (std::uint32_t g = 0; g < group; ++g) {
    for (std::uint32_t r = 0; r < rows; ++r) {
      std::uint32_t one = 1;
      float query[KVSIFT_MAX_HEAD_DIM];
      k.array.widen_rows(HeadRows{&queries->view, nullptr, 0, head * group + g}.stretch(r, &one), 1,
                         head_dim, query);
      add_importance(k, keys, head_dim, scale, query, queries->tokens - rows + r + 1,
                     1.0f / static_cast<float>(group * rows), row, importance);
    }
  }
  return check_result("importance", importance, queries->tokens, error);
}

kvsift_status kvsift_balance_attend(uint32_t head_dim, float scale, const float *query,
                                    const kvsift_cache *cache, uint32_t head,
                                    const kvsift_weighted *numerator,
                                    const kvsift_weighted *denominator, float *out,
                                    kvsift_error *error) {
  if (head_dim < 1 || head_dim > KVSIFT_MAX_HEAD_DIM) {
    return fail(error, KVSIFT_INVALID_ARGUMENT, "head_dim is ", head_dim, ", must be 1 to ",
                KVSIFT_MAX_HEAD_DIM);
  }
  if (query == nullptr || out == nullptr || numerator == nullptr || numerator->count == 0) {
    return fail(error, KVSIFT_INVALID_ARGUMENT, "query, out or numerator is null or empty");
  }
  if (denominator == nullptr) denominator = numerator;
  if (cache == nullptr) return fail(error, KVSIFT_INVALID_ARGUMENT, "cache is null");
  if (kvsift_status s = check_scale(scale, error)) return s;
  kvsift_status status = check_balance_cache(cache, head, kvsift_range{0, cache->tokens}, error);
  if (status == KVSIFT_OK) status = check_set(numerator, "numerator", cache->tokens, error);
  if (status == KVSIFT_OK) status = check_set(denominator, "denominator", cache->tokens, error);
  if (status != KVSIFT_OK) return status;
  float padded[KVSIFT_MAX_HEAD_DIM] = {};
  for (std::uint32_t c = 0; c < head_dim; ++c) {
    if (query[c] - query[c] != 0.0f)
      return fail(error, KVSIFT_NOT_FINITE, "query[", c, "] is NaN or infinite");
    padded[c] = query[c];
  }
  if (scale == 0.0f) scale = 1.0f / __builtin_sqrtf(static_cast<float>(head_dim));
  const Estimator estimator{*kernels(best_level()),
                            balance_rows(cache, &cache->keys, head),
                            balance_rows(cache, &cache->values, head),
                            head_dim,
                            scale,
                            padded};
  estimator.attend(*numerator, *denominator, out);
  return check_result("out", out, head_dim, error);
}

#include "check.h"

#include "kernels/kernels.h"

namespace kvsift {

bool is_policy(const kvsift_policy *handle) {
  if (handle == nullptr || reinterpret_cast<std::uintptr_t>(handle) % kAlign != 0) return false;
  return policy_of(handle)->alive == kAlive;
}

kvsift_status check_layer(const Policy *policy, std::uint32_t layer) {
  if (layer < policy->s.c.layers) return KVSIFT_OK;
  return fail_in(policy, KVSIFT_INVALID_ARGUMENT, "layer is ", layer, ", the policy has ", policy->s.c.layers);
}

kvsift_status check_heads(const Policy *policy, const kvsift_query *query, HeadSpan *span) {
  const std::uint32_t heads = policy->s.c.kv_heads;
  *span = HeadSpan{0, heads};
  if (query == nullptr) return KVSIFT_OK;
  if (query->struct_size < sizeof(kvsift_query)) {
    return fail_in(policy, KVSIFT_INVALID_STRUCT_SIZE, "query->struct_size is ", query->struct_size, ", less than ",
                   static_cast<std::uint64_t>(sizeof(kvsift_query)));
  }
  if (query->first_kv_head >= heads || query->kv_heads > heads - query->first_kv_head) {
    return fail_in(policy, KVSIFT_INVALID_ARGUMENT, "query->first_kv_head ", query->first_kv_head, " and kv_heads ",
                   query->kv_heads, " go beyond the policy's ", heads, " KV heads");
  }
  span->begin = query->first_kv_head;
  if (query->kv_heads > 0) span->end = query->first_kv_head + query->kv_heads;
  return KVSIFT_OK;
}

kvsift_status check_view(const Policy *policy, const char *name, const kvsift_view &view) {
  if (view.data == nullptr) return fail_in(policy, KVSIFT_INVALID_ARGUMENT, name, ".data is null");
  if (view.type > KVSIFT_I8) {
    return fail_in(policy, KVSIFT_INVALID_ARGUMENT, name, ".type is ", view.type, ", no KVSIFT_F32 .. KVSIFT_I8");
  }
  if (view.reserved != 0) return fail_in(policy, KVSIFT_INVALID_ARGUMENT, name, ".reserved is ", view.reserved, ", not 0");
  const std::uint64_t size = element_bytes(view.type);
  if (reinterpret_cast<std::uintptr_t>(view.data) % size != 0 || view.token_stride % size != 0 ||
      view.head_stride % size != 0 || view.page_stride % size != 0) {
    return fail_in(policy, KVSIFT_MISALIGNED, name, ": data or a stride is no multiple of the element's ", size, " bytes");
  }
  if ((view.type == KVSIFT_I8) != (view.scales != nullptr)) {
    return fail_in(policy, KVSIFT_INVALID_ARGUMENT, name, ".scales must be set for KVSIFT_I8, and only then");
  }
  if (view.scales != nullptr && (reinterpret_cast<std::uintptr_t>(view.scales) | view.scale_token_stride |
                                 view.scale_head_stride | view.scale_page_stride) %
                                        sizeof(float) != 0) {
    return fail_in(policy, KVSIFT_MISALIGNED, name, ": scales or a scale stride is no multiple of 4 bytes");
  }
  return KVSIFT_OK;
}

kvsift_status check_cache(const Policy *policy, const kvsift_cache *cache, std::uint32_t tokens) {
  if (cache == nullptr) return fail_in(policy, KVSIFT_INVALID_ARGUMENT, "cache is null");
  if (cache->struct_size < sizeof(kvsift_cache)) {
    return fail_in(policy, KVSIFT_INVALID_STRUCT_SIZE, "cache->struct_size is ", cache->struct_size, ", less than ",
                   static_cast<std::uint64_t>(sizeof(kvsift_cache)));
  }
  if (cache->tokens < tokens) {
    return fail_in(policy, KVSIFT_INVALID_ARGUMENT, "cache->tokens is ", cache->tokens, ", the query sees ", tokens);
  }
  if (kvsift_status s = check_view(policy, "cache->keys", cache->keys)) return s;
  if (kvsift_status s = check_view(policy, "cache->values", cache->values)) return s;
  if (cache->block_table == nullptr) return KVSIFT_OK;
  const std::uint32_t page = cache->page_tokens;
  if (page == 0 || (page & (page - 1)) != 0) {
    return fail_in(policy, KVSIFT_INVALID_ARGUMENT, "cache->page_tokens is ", page, ", not a power of two");
  }
  if (cache->block_table_stride != 0 && cache->block_table_stride < blocks_of(tokens, page)) {
    return fail_in(policy, KVSIFT_INVALID_ARGUMENT, "cache->block_table_stride is ", cache->block_table_stride,
                   ", less than the ", blocks_of(tokens, page), " pages of a head");
  }
  return KVSIFT_OK;
}

kvsift_status check_table(const Policy *policy, const kvsift_cache &cache, std::uint32_t head, std::uint32_t begin,
                          std::uint32_t end) {
  if (cache.block_table == nullptr) return KVSIFT_OK;
  const std::int32_t *table = cache.block_table + std::uint64_t{cache.block_table_stride} * head;
  for (std::uint32_t page = begin / cache.page_tokens; page * cache.page_tokens < end; ++page) {
    if (table[page] >= 0) continue;
    return fail_in(policy, KVSIFT_INVALID_ARGUMENT, "cache->block_table: entry ", page, " of KV head ", head, " is ",
                   table[page]);
  }
  return KVSIFT_OK;
}

kvsift_status check_own_room(const Policy *policy, const char *name, const float *buffer, std::uint64_t floats, HeadSpan span) {
  if (buffer == nullptr) return KVSIFT_OK;
  const std::uint64_t head_bytes = policy->s.group * floats * sizeof(float);
  const auto first = reinterpret_cast<std::uintptr_t>(buffer) + span.begin * head_bytes;
  if (!overlap(reinterpret_cast<const void *>(first), (span.end - span.begin) * head_bytes, policy, policy->bytes)) {
    return KVSIFT_OK;
  }
  return fail_in(policy, KVSIFT_INVALID_ARGUMENT, name, " lies in the policy's arena");
}

static bool rows_finite(const Policy *policy, const HeadRows &rows, std::uint32_t begin, std::uint32_t end) {
  while (begin < end) {
    std::uint32_t count = end - begin;
    const Rows stretch = rows.stretch(begin, &count);
    if (!kernels(policy->level)->array.rows_finite(stretch, count, policy->s.c.head_dim)) return false;
    begin += count;
  }
  return true;
}

kvsift_status check_finite(const Policy *policy, const kvsift_cache &cache, std::uint32_t head, std::uint32_t begin,
                           std::uint32_t end) {
  const char *wrong = nullptr;
  if (!rows_finite(policy, head_rows(cache, cache.values, head), begin, end)) wrong = "cache->values";
  if (!rows_finite(policy, head_rows(cache, cache.keys, head), begin, end)) wrong = "cache->keys";
  if (wrong == nullptr) return KVSIFT_OK;
  return fail_in(policy, KVSIFT_NOT_FINITE, wrong, ": NaN or infinity in KV head ", head, ", tokens ", begin, " .. ",
                 end - 1);
}

HeadRows head_rows(const kvsift_cache &cache, const kvsift_view &view, std::uint32_t head) {
  const std::int32_t *table = cache.block_table;
  if (table != nullptr) table += std::uint64_t{cache.block_table_stride} * head;
  return HeadRows{&view, table, cache.page_tokens, head};
}

static Rows query_rows(const Policy *policy, const kvsift_query &query, std::uint32_t kv_head, std::uint32_t row) {
  const kvsift_view &view = query.view;
  const std::uint64_t head = std::uint64_t{kv_head} * policy->s.group;
  Rows rows{static_cast<const std::uint8_t *>(view.data) + row * view.token_stride + head * view.head_stride, view.type,
            view.head_stride, nullptr, view.scale_head_stride};
  if (view.scales != nullptr) {
    rows.scales = reinterpret_cast<const float *>(reinterpret_cast<const std::uint8_t *>(view.scales) +
                                                  row * view.scale_token_stride + head * view.scale_head_stride);
  }
  return rows;
}

kvsift_status check_block_buffers(const Policy *policy, const kvsift_observation &o, std::uint32_t blocks) {
  const bool masses = (policy->s.needs & KVSIFT_NEEDS_MASS) != 0;
  const char *missing = nullptr;
  if (!masses && o.block_max == nullptr) missing = "block_max";
  if (masses && o.block_mass == nullptr) missing = "block_mass";
  if (o.log_sum_exp == nullptr) missing = "log_sum_exp";
  if (missing != nullptr) {
    return fail_in(policy, KVSIFT_INVALID_ARGUMENT, "observation->", missing, " is null, this method needs it");
  }
  if (o.block_stride >= blocks) return KVSIFT_OK;
  return fail_in(policy, KVSIFT_INVALID_ARGUMENT, "observation->block_stride is ", o.block_stride, ", at least ", blocks,
                 " is needed");
}

kvsift_status check_row_order(const Policy *policy, std::uint32_t layer, const char *name, std::uint32_t tokens,
                              HeadSpan span) {
  for (std::uint32_t i = span.begin; i < span.end; ++i) {
    const std::uint32_t rows = policy->unit(layer - policy->s.c.dense_layers, i)->rows_seen;
    const std::uint32_t seen = rows > policy->tokens ? rows : policy->tokens;
    if (tokens > seen) continue;
    return fail_in(policy, KVSIFT_OUT_OF_ORDER, name, " is ", tokens, ", KV head ", i, " of layer ", layer, " has rows up to ",
                   seen);
  }
  return KVSIFT_OK;
}

kvsift_status check_query(const Policy *policy, const kvsift_query *query, HeadSpan span) {
  if (query == nullptr) return fail_in(policy, KVSIFT_INVALID_ARGUMENT, "query is null");
  if (kvsift_status s = check_view(policy, "query->view", query->view)) return s;
  const std::uint32_t rows = query->rows == 0 ? 1 : query->rows;
  if (rows > query->tokens) {
    return fail_in(policy, KVSIFT_INVALID_ARGUMENT, "query->rows is ", rows, ", more than query->tokens ", query->tokens);
  }
  for (std::uint32_t row = 0; row < rows; ++row) {
    for (std::uint32_t head = span.begin; head < span.end; ++head) {
      if (kernels(policy->level)->array.rows_finite(query_rows(policy, *query, head, row), policy->s.group,
                                                    policy->s.c.head_dim)) {
        continue;
      }
      return fail_in(policy, KVSIFT_NOT_FINITE, "query->view: NaN or infinity in row ", row, ", a query head of KV head ",
                     head);
    }
  }
  return KVSIFT_OK;
}

void widen_queries(const Policy *policy, const kvsift_query &query, std::uint32_t kv_head, std::uint32_t row,
                   float *out) {
  kernels(policy->level)->array.widen_rows(query_rows(policy, query, kv_head, row), policy->s.group,
                                           policy->s.c.head_dim, out);
}

}  // namespace kvsift

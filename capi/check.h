// What the ABI's edge checks before anything else runs.
#pragma once

#include "core/view.h"
#include "overlap.h"
#include "policy/policy.h"

namespace kvsift {

// Leaves the sentence in the policy. Calls on different heads may fail at once: then one of them is heard.
template <class... Words>
kvsift_status fail_in(const Policy *policy, kvsift_status status, Words... words) {
  auto *owner = const_cast<Policy *>(policy);
  if (owner->error_busy.exchange(1, std::memory_order_acquire) == 0) {
    fail(&owner->error, status, words...);
    owner->error_busy.store(0, std::memory_order_release);
  }
  return status;
}

inline Policy *policy_of(kvsift_policy *handle) { return reinterpret_cast<Policy *>(handle); }
inline const Policy *policy_of(const kvsift_policy *handle) { return reinterpret_cast<const Policy *>(handle); }

// A handle that create or fork made and destroy has not marked.
bool is_policy(const kvsift_policy *handle);

// The KV heads a call works on.
struct HeadSpan {
  std::uint32_t begin, end;
};

kvsift_status check_layer(const Policy *policy, std::uint32_t layer);
// `query` may be null: all heads.
kvsift_status check_heads(const Policy *policy, const kvsift_query *query, HeadSpan *span);
kvsift_status check_view(const Policy *policy, const char *name, const kvsift_view &view);
kvsift_status check_cache(const Policy *policy, const kvsift_cache *cache, std::uint32_t tokens);
// Pages of tokens [begin, end) of one head must be in the block table, where there is one.
kvsift_status check_table(const Policy *policy, const kvsift_cache &cache, std::uint32_t head, std::uint32_t begin,
                          std::uint32_t end);
// Keys and values of tokens [begin, end) of one head, whose pages are in the table.
kvsift_status check_finite(const Policy *policy, const kvsift_cache &cache, std::uint32_t head, std::uint32_t begin,
                           std::uint32_t end);
// The block form's buffers, as far as the method asks for them.
kvsift_status check_block_buffers(const Policy *policy, const kvsift_observation &o, std::uint32_t blocks);
// Whether a row of attention at cache length `tokens`, given as `name`, is new to each head.
kvsift_status check_row_order(const Policy *policy, std::uint32_t layer, const char *name, std::uint32_t tokens,
                              HeadSpan span);
// Queries are read with their rows: view, row count, finite values are checked.
kvsift_status check_query(const Policy *policy, const kvsift_query *query, HeadSpan span);

// Rows of one head of a cache.
HeadRows head_rows(const kvsift_cache &cache, const kvsift_view &view, std::uint32_t head);

// Query row `row` of the group of one KV head as [group][dim16] float32, padded with zeros.
void widen_queries(const Policy *policy, const kvsift_query &query, std::uint32_t kv_head, std::uint32_t row, float *out);

// What a call writes for the query heads of its span, `floats` each, must lie outside the policy's arena; null is left to others.
kvsift_status check_own_room(const Policy *policy, const char *name, const float *buffer, std::uint64_t floats, HeadSpan span);

}  // namespace kvsift

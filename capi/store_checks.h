// Checks that the entries of <kvsift/store.h> share. Sentences go to the store, but for those about a config.
#pragma once

#include "core/status.h"
#include "store/store.h"

namespace kvsift {

inline Store *store_of(kvsift_store *handle) { return reinterpret_cast<Store *>(handle); }
inline const Store *store_of(const kvsift_store *handle) { return reinterpret_cast<const Store *>(handle); }

// A handle that create or open made and close has not marked.
bool is_store(const kvsift_store *handle);

kvsift_status check_config(const kvsift_store_config *config);
kvsift_status check_store_layer(Store *store, std::uint32_t layer);

// For device stores too: rows as append takes them, of the configured type, with aligned elements, scales where they are
// needed;
kvsift_status check_rows(kvsift_error *error, const Geometry &g, const char *name, const kvsift_view *view);

// whether `tokens` rows from first_token on follow the `have` that a layer holds, and fit;
kvsift_status check_append(kvsift_error *error, std::uint32_t layer, std::uint32_t have, std::uint32_t max_tokens,
                           std::uint32_t first_token, std::uint32_t tokens);

// lists for the store's heads, ranges ascending and disjoint, within the tokens that the selection says;
kvsift_status check_selection(kvsift_error *error, const Geometry &g, const kvsift_selection *selection);

// no coreset, whose rows resolve would not bring.
kvsift_status check_no_coreset(kvsift_error *error, const kvsift_selection &selection);

template <class T>
kvsift_status check_size(kvsift_error *error, const char *name, const T *object) {
  if (object == nullptr) return fail(error, KVSIFT_INVALID_ARGUMENT, name, " is null");
  if (object->struct_size >= sizeof(T)) return KVSIFT_OK;
  return fail(error, KVSIFT_INVALID_STRUCT_SIZE, name, "->struct_size is ", object->struct_size, ", less than ",
              static_cast<std::uint64_t>(sizeof(T)));
}

}  // namespace kvsift

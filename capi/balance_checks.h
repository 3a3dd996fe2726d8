// Checks that the entries of <kvsift/balance.h> share.
#pragma once

#include "core/status.h"
#include "core/view.h"
#include "kernels/kernels.h"
#include "kvsift/balance.h"

namespace kvsift {

// A view whose rows can be read as they are.
kvsift_status check_balance_view(const kvsift_view *view, const char *name, kvsift_error *error);

// A cache, and its rows [begin, end) of `head`.
kvsift_status check_balance_cache(const kvsift_cache *cache, std::uint32_t head, kvsift_range range,
                                  kvsift_error *error);

// All rows [begin, end) are free of NaN and infinity; the sentence names the first that is not.
kvsift_status check_balance_rows(const Kernels &kernels, const HeadRows &rows, kvsift_range range,
                                 std::uint32_t dim, const char *name, kvsift_error *error);

HeadRows balance_rows(const kvsift_cache *cache, const kvsift_view *view, std::uint32_t head);

}  // namespace kvsift

// A slow tier's header and entries: made at create, read at open.
#pragma once

#include "store/store.h"

namespace kvsift {

kvsift_status make_image(Store *store, kvsift_error *error);

// Finds the completed blocks; `verify` reads every record back. Uses the fast tier as scratch.
kvsift_status recover(Store *store, bool verify, kvsift_error *error);

// Overwrites a block's entry with zeros.
kvsift_status erase_entry(Store *store, std::uint32_t block);

}  // namespace kvsift

// Rows into a slot: as they are, or as int8 with a scale.
#pragma once

#include "store/store.h"

namespace kvsift {

// Copies `tokens` rows of one head, from `first` of the view on, to a record's rows from `offset` on.
void store_rows(const Geometry &g, const kvsift_view &view, std::uint32_t head, std::uint32_t first,
                std::uint32_t tokens, std::uint8_t *rows, float *scales, std::uint32_t offset);

// The first token with a value that is not finite, or `tokens`.
std::uint32_t first_not_finite(const Geometry &g, const kvsift_view &view, std::uint32_t tokens);

}  // namespace kvsift

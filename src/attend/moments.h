// Page moments of one KV head as attention and selection read them.
#pragma once

#include <cstdint>

#include "core/view.h"
#include "kernels/element.h"

namespace kvsift {

// Rows [pages][padded_dim(dim)], KVSIFT_F16 or KVSIFT_I8 with one scale a row, padding zero. Pages
// are blocks of page_tokens tokens; the last may be open, and its rows are kept up to date.
struct Moments {
  std::uint32_t dim;
  std::uint32_t page_tokens;
  std::uint32_t tokens;  // covered; the last page holds the rest of tokens / page_tokens
  kvsift_type type;
  void *mean, *deviation, *value;                     // of keys, keys and values; value may be null
  float *mean_scale, *deviation_scale, *value_scale;  // KVSIFT_I8, else null
  bool multiplies_int8 = false;                       // machine_multiplies_int8 of the level in use
};

// One of the three arrays as rows, from page `first` on.
inline Rows moment_rows(const Moments &moments, const void *data, const float *scales,
                        std::uint32_t first) {
  const std::uint64_t stride =
      static_cast<std::uint64_t>(padded_dim(moments.dim)) * element_bytes(moments.type);
  return Rows{static_cast<const std::uint8_t *>(data) + first * stride, moments.type, stride,
              scales == nullptr ? nullptr : scales + first, sizeof(float)};
}

}  // namespace kvsift

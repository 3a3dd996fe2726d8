// Rows of a cache as kernels read them: one head, a stretch of tokens at a fixed stride.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kvsift/kvsift.h"

namespace kvsift {

// `count` rows of one head, evenly spaced; scales are null but for I8.
struct Rows {
  const std::uint8_t *data;
  kvsift_type type;
  std::uint64_t stride;  // bytes
  const float *scales;
  std::uint64_t scale_stride;  // bytes
  const std::uint8_t *const *list = nullptr;  // where the rows are; then data and stride do not count

  const std::uint8_t *row(std::uint64_t i) const {
    return list != nullptr ? list[i] : data + i * stride;
  }
  float scale(std::uint64_t i) const {
    if (scales == nullptr) return 1.0f;
    return *reinterpret_cast<const float *>(reinterpret_cast<const std::uint8_t *>(scales) +
                                            i * scale_stride);
  }
};

inline std::uint32_t element_bytes(kvsift_type type) {
  return type == KVSIFT_F32 ? 4u : type == KVSIFT_I8 ? 1u : 2u;
}

// All rows of one head of a view, behind a block table or not.
struct HeadRows {
  const kvsift_view *view;
  const std::int32_t *table;  // this head's; null: contiguous
  std::uint32_t page_tokens;
  std::uint32_t head;

  // The stretch that starts at `token`; `count` is cut to what lies at one stride.
  Rows stretch(std::uint32_t token, std::uint32_t *count) const {
    std::uint64_t page = 0, offset = token;
    if (table != nullptr) {
      page = static_cast<std::uint64_t>(table[token / page_tokens]);
      offset = token % page_tokens;
      const std::uint32_t left = page_tokens - static_cast<std::uint32_t>(offset);
      if (*count > left) *count = left;
    }
    const auto *base = static_cast<const std::uint8_t *>(view->data);
    Rows rows{base + page * view->page_stride + offset * view->token_stride +
                  head * view->head_stride,
              view->type, view->token_stride, nullptr, view->scale_token_stride};
    if (view->scales != nullptr) {
      rows.scales = reinterpret_cast<const float *>(
          reinterpret_cast<const std::uint8_t *>(view->scales) + page * view->scale_page_stride +
          offset * view->scale_token_stride + head * view->scale_head_stride);
    }
    return rows;
  }
};

}  // namespace kvsift

// Rows of a view on the device.
#pragma once

#include "core/view.h"
#include "cuda/core/device.cuh"

namespace kvsift {
namespace {

struct DeviceRow {
  const std::uint8_t *data;
  float scale;
};

// Row `offset` of page `page` (0 without pages) of one head.
__device__ inline DeviceRow row_of(const kvsift_view &view, std::uint64_t page, std::uint64_t offset, std::uint32_t head) {
  DeviceRow row{static_cast<const std::uint8_t *>(view.data) + page * view.page_stride + offset * view.token_stride +
                    head * view.head_stride,
                1.0f};
  if (view.scales != nullptr) {
    row.scale = *reinterpret_cast<const float *>(reinterpret_cast<const std::uint8_t *>(view.scales) +
                                                 page * view.scale_page_stride + offset * view.scale_token_stride +
                                                 head * view.scale_head_stride);
  }
  return row;
}

// A page table and how its pages are cut.
struct PageTable {
  const std::int32_t *entries;  // of one head; null: contiguous
  std::uint32_t shift;          // log2 of the tokens a page
};

// A negative entry is read as page 0: the caller reports it.
__device__ inline DeviceRow row_of_token(const kvsift_view &view, const PageTable &table, std::uint32_t token,
                                         std::uint32_t head) {
  if (table.entries == nullptr) return row_of(view, 0, token, head);
  const std::int32_t page = table.entries[token >> table.shift];
  return row_of(view, page < 0 ? 0 : static_cast<std::uint64_t>(page), token & ((1u << table.shift) - 1), head);
}

}  // namespace
}  // namespace kvsift

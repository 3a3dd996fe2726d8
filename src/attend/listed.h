// The rows of a chunk one by one: for short runs, and caches with small pages.
#pragma once

#include "attend/attend.h"
#include "attend/chunk.h"

namespace kvsift {

struct ListedRows {
  const std::uint8_t *row[kChunk];
  float scale[kChunk];
  std::uint32_t count = 0;

  void list(const HeadRows &rows, const Chunk &chunk) {
    count = 0;
    for (std::uint32_t r = 0; r < chunk.runs; ++r) {
      const Run run = chunk.run[r];
      for (std::uint32_t done = 0, n; done < run.count; done += n) {
        n = run.count - done;
        const Rows stretch = rows.stretch(run.first + done, &n);
        add(stretch, n);
      }
    }
  }

  Rows rows(const HeadRows &of) const {
    const kvsift_view &view = *of.view;
    return Rows{nullptr, view.type, 0, view.scales == nullptr ? nullptr : scale, sizeof(float), row};
  }

 private:
  void add(const Rows &rows, std::uint32_t n) {
    for (std::uint32_t i = 0; i < n; ++i) row[count + i] = rows.data + i * rows.stride;
    for (std::uint32_t i = 0; rows.scales != nullptr && i < n; ++i) scale[count + i] = rows.scale(i);
    count += n;
  }
};

// Whether rows lie together in runs so short that a call for each costs more than listing the rows, which `group` queries
// share.
inline bool better_listed(const HeadRows &rows, const Chunk &chunk, std::uint32_t group) {
  const std::uint32_t short_run = 16 * group;
  return chunk.runs * short_run > chunk.size || (rows.table != nullptr && rows.page_tokens < short_run);
}

}  // namespace kvsift

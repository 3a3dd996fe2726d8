// Cuts the tokens of a list into chunks, and a chunk into runs of neighbours.
#pragma once

#include <cstdint>

#include "kvsift/kvsift.h"

namespace kvsift {

constexpr std::uint32_t kChunk = 256;

// `count` neighbours from `first`: tokens, or pages of a tail.
struct Run {
  std::uint32_t first, count;
};

struct Chunk {
  std::uint32_t size = 0, runs = 0;
  Run run[kChunk];

  bool full() const { return size == kChunk; }
  // Takes what fits of `count` items from `first`; returns how many.
  std::uint32_t take(std::uint32_t first, std::uint32_t count) {
    const std::uint32_t n = count < kChunk - size ? count : kChunk - size;
    if (n == 0) return 0;
    if (runs > 0 && run[runs - 1].first + run[runs - 1].count == first) {
      run[runs - 1].count += n;
    } else {
      run[runs++] = {first, n};
    }
    size += n;
    return n;
  }
};

// Walks a list of kept tokens.
class KeptWalk {
 public:
  KeptWalk(const kvsift_range *ranges, std::uint32_t count) : ranges_(ranges), left_(count) {}

  bool next(Chunk *chunk) {
    chunk->size = chunk->runs = 0;
    while (left_ > 0 && !chunk->full()) {
      const std::uint32_t first = ranges_->begin + used_, count = ranges_->end - first;
      const std::uint32_t n = chunk->take(first, count);
      used_ += n;
      if (n == count) {
        ++ranges_;
        --left_;
        used_ = 0;
      }
    }
    return chunk->size > 0;
  }

 private:
  const kvsift_range *ranges_;
  std::uint32_t left_, used_ = 0;
};

// Goes through the pages that a list's tokens lie in, a stretch of pages at a time.
class KeptPages {
 public:
  KeptPages() = default;
  KeptPages(const kvsift_range *ranges, std::uint32_t count, std::uint32_t page_tokens)
      : ranges_(ranges), left_(count), page_tokens_(page_tokens) {}

  // logits[i] of page first + i becomes minus infinity where a kept token lies in it. Stretches
  // ascend.
  void hide(std::uint32_t first, std::uint32_t count, float *logits) {
    for (; left_ > 0; ++ranges_, --left_) {
      std::uint32_t page = ranges_->begin / page_tokens_;
      const std::uint32_t last = (ranges_->end - 1) / page_tokens_;
      if (page < first) page = first;
      for (; page <= last && page < first + count; ++page)
        logits[page - first] = -__builtin_inff();
      if (last >= first + count) return;
    }
  }

 private:
  const kvsift_range *ranges_ = nullptr;
  std::uint32_t left_ = 0, page_tokens_ = 1;
};

}  // namespace kvsift

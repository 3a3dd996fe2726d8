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

// Walks the pages below `pages` that no kept token lies in.
class LeftOutWalk {
 public:
  LeftOutWalk(const kvsift_range *ranges, std::uint32_t count, std::uint32_t page_tokens,
              std::uint32_t pages)
      : ranges_(ranges), left_(count), page_tokens_(page_tokens), pages_(pages) {}

  bool next(Chunk *chunk) {
    chunk->size = chunk->runs = 0;
    while (page_ < pages_ && !chunk->full()) {
      const std::uint32_t touched = left_ > 0 ? ranges_->begin / page_tokens_ : pages_;
      const std::uint32_t end = touched < pages_ ? touched : pages_;
      if (page_ < end) {
        page_ += chunk->take(page_, end - page_);
      } else if (left_ > 0) {
        const std::uint32_t behind = (ranges_->end - 1) / page_tokens_ + 1;
        if (behind > page_) page_ = behind;
        ++ranges_;
        --left_;
      }
    }
    return chunk->size > 0;
  }

 private:
  const kvsift_range *ranges_;
  std::uint32_t left_, page_tokens_, pages_, page_ = 0;
};

}  // namespace kvsift

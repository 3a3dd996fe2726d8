// Arena layout. One function per object walks its buffers in order through a Layout; the same walk counts the bytes for
// the size query and gives the offsets for create, so the two cannot disagree.
//
//     base (aligned to 64)
//     | object | buffer "a" | pad | buffer "b" | pad | ... | end = the size that was asked for
//
// Buffers start at multiples of 64 and are named, so that a shortage can say which one did not fit.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/status.h"

namespace kvsift {

constexpr std::uint64_t kAlign = KVSIFT_ARENA_ALIGNMENT;

constexpr std::uint64_t align_up(std::uint64_t bytes) {
  return (bytes + kAlign - 1) & ~(kAlign - 1);
}

// A place in an arena, relative to the object that owns it.
template <class T>
struct Offset {
  std::uint64_t bytes;

  T *in(void *base) const { return reinterpret_cast<T *>(static_cast<char *>(base) + bytes); }
  const T *in(const void *base) const {
    return reinterpret_cast<const T *>(static_cast<const char *>(base) + bytes);
  }
};

class Layout {
 public:
  // Counts without a limit.
  Layout() : limit_(~0ull) {}
  // Counts, and remembers the first buffer that ends beyond `limit` bytes.
  explicit Layout(std::uint64_t limit) : limit_(limit) {}

  template <class T>
  Offset<T> take(std::uint64_t count, const char *name) {
    const std::uint64_t at = used_;
    std::uint64_t bytes = 0;
    if (__builtin_mul_overflow(count, sizeof(T), &bytes) || bytes > kMost - used_) {
      overflow_ = true;
      bytes = 0;
    }
    used_ += align_up(bytes);
    if (used_ > limit_ && short_of_ == nullptr) {
      short_of_ = name;
      short_begin_ = at;
      short_bytes_ = bytes;
    }
    return Offset<T>{at};
  }

  // `count` pieces of `bytes` each.
  Offset<char> take_pieces(std::uint64_t count, std::uint64_t bytes, const char *name) {
    if (__builtin_mul_overflow(count, bytes, &bytes)) bytes = ~0ull;
    return take<char>(bytes, name);
  }

  std::uint64_t used() const { return used_; }
  bool overflow() const { return overflow_; }

  // OK, or a sentence about the first buffer that did not fit.
  kvsift_status check(kvsift_error *error) const {
    if (overflow_) {
      return fail(error, KVSIFT_INVALID_ARGUMENT, "the configuration needs more than 2^62 bytes");
    }
    if (short_of_ == nullptr) return KVSIFT_OK;
    return fail(error, KVSIFT_ARENA_TOO_SMALL, "arena of ", limit_, " bytes: buffer \"", short_of_,
                "\" of ", short_bytes_, " bytes at ", short_begin_, " does not fit");
  }

 private:
  static constexpr std::uint64_t kMost = 1ull << 62;
  std::uint64_t limit_;
  std::uint64_t used_ = 0;
  const char *short_of_ = nullptr;
  std::uint64_t short_begin_ = 0, short_bytes_ = 0;
  bool overflow_ = false;
};

}  // namespace kvsift

// Sentences for failures: text, numbers and names put together without stdio.
#pragma once

#include <cstdint>

#include "kvsift/kvsift.h"

namespace kvsift {

// One piece of a sentence.
struct Word {
  enum Kind { kText, kUnsigned, kSigned, kReal } kind;
  union {
    const char *text;
    std::uint64_t u;
    std::int64_t i;
    double real;
  };
  Word(const char *t) : kind(kText), text(t == nullptr ? "(null)" : t) {}
  Word(std::uint64_t v) : kind(kUnsigned), u(v) {}
  Word(unsigned long long v) : kind(kUnsigned), u(v) {}
  Word(std::uint32_t v) : kind(kUnsigned), u(v) {}
  Word(std::int32_t v) : kind(kSigned), i(v) {}
  Word(std::int64_t v) : kind(kSigned), i(v) {}
  Word(double v) : kind(kReal), real(v) {}
  Word(float v) : kind(kReal), real(static_cast<double>(v)) {}
};

// Writes the words into `message` (KVSIFT_ERROR_BYTES, cut at a character, zero-terminated).
void write_sentence(char *message, const Word *words, unsigned count);

// Fills `error` (may be null) and returns `status`.
template <class... Words>
kvsift_status fail(kvsift_error *error, kvsift_status status, Words... words) {
  if (error != nullptr) {
    const Word list[] = {Word(words)...};
    error->status = status;
    write_sentence(error->message, list, sizeof...(words));
  }
  return status;
}

}  // namespace kvsift

#include "policy/top_blocks.h"

#include <cstring>

namespace kvsift {
namespace {

// Larger floats give larger keys; -0 counts as 0.
std::uint32_t key_of(float score) {
  score += 0.0f;
  std::uint32_t bits;
  std::memcpy(&bits, &score, sizeof bits);
  return bits ^ ((bits >> 31) != 0 ? 0xffffffffu : 0x80000000u);
}

// One digit of a radix selection: among keys that agree with `prefix` above the digit, finds the digit of the
// `rank`-th largest (rank from 1) and leaves the rank among those that share it.
std::uint32_t select_digit(const float *scores, std::uint32_t count, std::uint32_t prefix, std::uint32_t mask,
                           unsigned shift, unsigned bits, std::uint32_t *rank) {
  std::uint32_t histogram[1u << 11] = {};
  const std::uint32_t digits = (1u << bits) - 1;
  for (std::uint32_t i = 0; i < count; ++i) {
    const std::uint32_t key = key_of(scores[i]);
    if ((key & mask) == prefix) ++histogram[(key >> shift) & digits];
  }
  std::uint32_t digit = digits;
  while (histogram[digit] < *rank) *rank -= histogram[digit--];
  return digit;
}

}  // namespace

std::uint32_t top_blocks(const float *scores, std::uint32_t begin, std::uint32_t count, std::uint32_t k,
                         std::uint32_t *out) {
  if (k >= count) {
    for (std::uint32_t i = 0; i < count; ++i) out[i] = begin + i;
    return count;
  }
  if (k == 0) return 0;
  scores += begin;
  std::uint32_t rank = k;
  std::uint32_t threshold = select_digit(scores, count, 0, 0, 21, 11, &rank) << 21;
  threshold |= select_digit(scores, count, threshold, 0xffe00000u, 10, 11, &rank) << 10;
  threshold |= select_digit(scores, count, threshold, 0xfffffc00u, 0, 10, &rank);
  // `rank` of the keys equal to the threshold are wanted: the first ones.
  std::uint32_t taken = 0;
  for (std::uint32_t i = 0; taken < k; ++i) {
    const std::uint32_t key = key_of(scores[i]);
    if (key > threshold || (key == threshold && rank > 0)) {
      rank -= key == threshold;
      out[taken++] = begin + i;
    }
  }
  return k;
}

}  // namespace kvsift

#include "policy/top_blocks.h"

#include <algorithm>
#include <cstring>

namespace kvsift {

// -0 counts as 0.
std::uint32_t score_key(float score) {
  score += 0.0f;
  std::uint32_t bits;
  std::memcpy(&bits, &score, sizeof bits);
  return bits ^ ((bits >> 31) != 0 ? 0xffffffffu : 0x80000000u);
}

namespace {

constexpr unsigned kDigitBits = 11;
constexpr std::uint32_t kDigits = 1u << kDigitBits, kFew = 1024;

// One digit of a radix selection: among keys that agree with `prefix` above `shift + kDigitBits`, finds the digit of the
// `rank`-th largest (rank from 1), appends it to the prefix and leaves the rank among those that share it. Returns how
// many share it.
std::uint32_t select_digit(const float *scores, std::uint32_t count, std::uint64_t *prefix, unsigned shift,
                           std::uint32_t *rank) {
  std::uint32_t histogram[kDigits] = {};
  for (std::uint32_t i = 0; i < count; ++i) {
    const std::uint64_t key = std::uint64_t{score_key(scores[i])} << 1;  // 33 bits: three digits of 11
    if (key >> (shift + kDigitBits) == *prefix) ++histogram[(key >> shift) & (kDigits - 1)];
  }
  std::uint32_t digit = kDigits - 1;
  while (histogram[digit] < *rank) *rank -= histogram[digit--];
  *prefix = *prefix << kDigitBits | digit;
  return histogram[digit];
}

// The key of the given rank, and its rank among equals.
std::uint32_t select_key(const float *scores, std::uint32_t count, std::uint32_t *rank) {
  std::uint64_t prefix = 0;
  unsigned shift = 2 * kDigitBits;
  while (select_digit(scores, count, &prefix, shift, rank) > kFew && shift > 0) shift -= kDigitBits;
  if (shift == 0) return static_cast<std::uint32_t>(prefix >> 1);
  std::uint32_t few[kFew + 1], n = 0;  // one more: each key is written before it is known to stay
  for (std::uint32_t i = 0; i < count; ++i) {
    few[n] = score_key(scores[i]);
    n += (std::uint64_t{few[n]} << 1) >> shift == prefix;
  }
  std::nth_element(few, few + *rank - 1, few + n, [](std::uint32_t a, std::uint32_t b) { return a > b; });
  const std::uint32_t found = few[*rank - 1];
  std::uint32_t above = 0;
  for (std::uint32_t i = 0; i + 1 < *rank; ++i) above += few[i] > found;
  *rank -= above;
  return found;
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
  const std::uint32_t threshold = select_key(scores, count, &rank);
  // `rank` of the keys equal to the threshold are wanted: the first ones.
  std::uint32_t taken = 0;
  for (std::uint32_t i = 0; taken < k; ++i) {
    const std::uint32_t key = score_key(scores[i]);
    if (key > threshold || (key == threshold && rank > 0)) {
      rank -= key == threshold;
      out[taken++] = begin + i;
    }
  }
  return k;
}

}  // namespace kvsift

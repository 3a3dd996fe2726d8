// Full attention of several KV heads whose rows lie side by side, token by token: memory is read in
// the order it lies in, each token's rows for all heads in turn.
#pragma once

#include <cstdint>

#include "attend/running.h"

namespace kvsift {

// At a time: so many query heads, of whole KV heads, with so many elements in all.
constexpr std::uint32_t kTogetherQueries = kRows, kTogetherFloats = 4096;

// KV heads of `group` query heads that go together; at least one.
inline std::uint32_t heads_together(std::uint32_t group, std::uint32_t dim) {
  const std::uint32_t most = kTogetherFloats / (group * padded_dim(dim));
  return most < kTogetherQueries / group ? most : kTogetherQueries / group;
}

// Whether a token's heads lie closer than a head's tokens.
bool side_by_side(const kvsift_cache &cache);

// KV heads one after the other, as many as the bounds above allow, over tokens [0, tokens); each
// result has an `out`. The bits are those of `attend` with everything kept.
void attend_together(const Head *heads, const Attended *results, std::uint32_t count,
                     std::uint32_t tokens);

}  // namespace kvsift

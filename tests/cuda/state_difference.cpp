#include "state_difference.h"

#include <cstdio>
#include <cstring>

#include "policy/policy.h"

using namespace kvsift;

namespace {

struct Comparison {
  const Policy *a, *b;
  char *sentence;
  size_t bytes;

  bool differ(const char *what, std::uint64_t at, std::uint64_t count) const {
    const auto *x = reinterpret_cast<const unsigned char *>(a) + at, *y = reinterpret_cast<const unsigned char *>(b) + at;
    for (std::uint64_t i = 0; i < count; ++i) {
      if (x[i] == y[i]) continue;
      std::snprintf(sentence, bytes, "%s: byte %llu of %llu is %02x and %02x", what, static_cast<unsigned long long>(i),
                    static_cast<unsigned long long>(count), x[i], y[i]);
      return true;
    }
    return false;
  }

  bool differ(const char *what, std::uint32_t x, std::uint32_t y) const {
    if (x != y) std::snprintf(sentence, bytes, "%s: %u and %u", what, x, y);
    return x != y;
  }
};

// Which of a unit's buffers holds the byte.
bool unit_differs(const Comparison &c, std::uint32_t layer, std::uint32_t head) {
  const UnitPlaces &p = c.a->places;
  const std::uint64_t at = reinterpret_cast<const char *>(c.a->unit(layer, head)) - reinterpret_cast<const char *>(c.a);
  for (std::uint32_t i = 0; i < p.field_count; ++i) {
    char name[100];
    std::snprintf(name, sizeof name, "buffer %u of sparse layer %u, KV head %u", i, layer, head);
    if (c.differ(name, at + p.fields[i].offset, p.fields[i].bytes)) return true;
  }
  return c.differ("a unit", at, p.bytes);
}

}  // namespace

bool state_difference(const kvsift_policy *x, const kvsift_policy *y, char *sentence, size_t bytes) {
  const auto *a = reinterpret_cast<const Policy *>(x), *b = reinterpret_cast<const Policy *>(y);
  const Comparison c{a, b, sentence, bytes};
  if (c.differ("tokens", a->tokens, b->tokens) || c.differ("decode_steps", a->decode_steps, b->decode_steps) ||
      c.differ("prompt_end", a->prompt_end, b->prompt_end) || c.differ("first_prompt", a->first_prompt, b->first_prompt) ||
      c.differ("selected_for", a->selected_for.load(), b->selected_for.load())) {
    return true;
  }
  for (std::uint32_t layer = 0; layer < a->s.sparse_layers; ++layer) {
    for (std::uint32_t head = 0; head < a->s.c.kv_heads; ++head) {
      if (unit_differs(c, layer, head)) return true;
    }
  }
  return c.differ("ranges", a->ranges.bytes, a->range_counts.bytes - a->ranges.bytes) ||
         c.differ("range counts", a->range_counts.bytes, a->blocks.bytes - a->range_counts.bytes) ||
         c.differ("blocks", a->blocks.bytes, a->block_counts.bytes - a->blocks.bytes) ||
         c.differ("block counts", a->block_counts.bytes, a->missed.bytes - a->block_counts.bytes) ||
         c.differ("marks", a->marks.bytes, a->s.c.kv_heads * sizeof(HeadMarks));
}

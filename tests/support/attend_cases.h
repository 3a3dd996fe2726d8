// One KV head with its queries, lists and tail at random, and its attention in float64.
#pragma once

#include "attend/attend.h"
#include "attend/prefill.h"
#include "kernel_cases.h"

namespace kvsift_test {

constexpr std::uint32_t kMostTokens = 1200;

struct Shape {
  std::uint32_t tokens, dim, group, block_tokens, page_tokens;  // page_tokens 0: contiguous
  kvsift_type type, moments_type;
  std::uint32_t tail;
  bool per_query_head;
};

inline Shape random_shape(Random &random) {
  static const std::uint32_t dims[] = {1, 7, 16, 40, 64, 80, 128, 256},
                             blocks[] = {1, 3, 16, 32, 256};
  Shape s;
  s.tokens = 1 + random.below(random.below(2) ? kMostTokens : 40);
  s.dim = dims[random.below(8)];
  s.group = 1 + random.below(random.below(2) ? 16 : 4);
  s.block_tokens = blocks[random.below(5)];
  s.page_tokens = random.below(2) ? 0 : 1u << (2 + random.below(5));
  s.type = kTypes[random.below(4)];
  s.moments_type = random.below(2) ? KVSIFT_F16 : KVSIFT_I8;
  s.tail = random.below(3);
  s.per_query_head = random.below(2) != 0;
  return s;
}

struct Case {
  Shape shape;
  std::uint32_t pages, blocks, rows_stored;
  std::int32_t table[kMostTokens];
  RandomRows keys, values, mean, deviation, value_mean;
  kvsift_view key_view, value_view;
  Buffer<float> queries;
  Moments moments;
  Buffer<kvsift_range> ranges;
  std::uint32_t counts[16];
  std::uint32_t coreset[kMostTokens];
  float weights[kMostTokens];
  Tail tail;
  float scale;

  static std::uint32_t stored(const Shape &s) {
    return s.page_tokens == 0 ? s.tokens
                              : (s.tokens + s.page_tokens - 1) / s.page_tokens * s.page_tokens;
  }
  static std::uint32_t block_count(const Shape &s) {
    return (s.tokens + s.block_tokens - 1) / s.block_tokens;
  }
  static std::uint32_t pad(const Shape &s) { return padded_dim(s.dim); }

  Case(Random &random, const Shape &s)
      : shape(s),
        blocks(block_count(s)),
        rows_stored(stored(s)),
        keys(random, s.type, rows_stored, s.dim, random.below(3), true),
        values(random, s.type, rows_stored, s.dim, random.below(3), true),
        mean(random, s.moments_type, blocks, pad(s), 0, true),
        deviation(random, s.moments_type, blocks, pad(s), 0, true),
        value_mean(random, s.moments_type, blocks, pad(s), 0, true),
        queries(s.group * pad(s)),
        ranges(s.group * kMostTokens),
        scale(1.0f / std::sqrt(static_cast<float>(s.dim))) {
    for (std::uint32_t i = 0; i < queries.count; ++i)
      queries.data[i] = i % pad(s) < s.dim ? 2.0f * random.uniform() : 0.0f;
    for (std::uint32_t p = 0; p < kMostTokens; ++p) table[p] = static_cast<std::int32_t>(p);
    const std::uint32_t n = s.page_tokens == 0 ? 0 : rows_stored / s.page_tokens;
    for (std::uint32_t p = n; p > 1; --p) {
      const std::uint32_t other = random.below(p);
      const std::int32_t t = table[other];
      table[other] = table[p - 1];
      table[p - 1] = t;
    }
    key_view = view_of(keys);
    value_view = view_of(values);
    moments = Moments{s.dim,
                      s.block_tokens,
                      s.tokens,
                      s.moments_type,
                      mean.bytes.data,
                      deviation.bytes.data,
                      value_mean.bytes.data,
                      scales_of(mean),
                      scales_of(deviation),
                      scales_of(value_mean)};
    for (std::uint32_t l = 0; l < s.group; ++l) random_list(random, l);
    random_coreset(random);
  }

  static float *scales_of(RandomRows &rows) {
    return rows.rows.type == KVSIFT_I8 ? rows.scales.data : nullptr;
  }

  kvsift_view view_of(RandomRows &rows) const {
    kvsift_view view = {};
    view.data = rows.bytes.data;
    view.type = shape.type;
    view.token_stride = rows.stride;
    view.page_stride = shape.page_tokens * rows.stride;
    view.scales = scales_of(rows);
    view.scale_token_stride = 4;
    view.scale_page_stride = shape.page_tokens * 4u;
    return view;
  }

  void random_list(Random &random, std::uint32_t l) {
    kvsift_range *out = ranges.data + l * kMostTokens;
    const std::uint32_t share = 1 + random.below(8), run = 1 + random.below(40);
    std::uint32_t n = 0;
    for (std::uint32_t t = random.below(3); t < shape.tokens;) {
      std::uint32_t end = t + 1 + random.below(run);
      if (end > shape.tokens) end = shape.tokens;
      if (random.below(share) == 0) out[n++] = {t, end};
      t = end + 1 + random.below(3);
    }
    if (random.below(10) == 0) {
      n = 1;
      out[0] = {0, shape.tokens};
    }
    counts[l] = n;
  }

  void random_coreset(Random &random) {
    tail = Tail{shape.tail, &moments, nullptr, 0, coreset, weights, 0};
    for (std::uint32_t t = 0; t < shape.tokens; ++t) {
      if (random.below(3) != 0) continue;
      coreset[tail.coreset_count] = t;
      weights[tail.coreset_count++] = 0.5f + 3.0f * (1.0f + random.uniform());
    }
  }

  Lists lists() const { return Lists{ranges.data, counts, kMostTokens, shape.per_query_head}; }
  Head head(const Kernels &k) const {
    const std::int32_t *pages_of = shape.page_tokens == 0 ? nullptr : table;
    return Head{&k,
                queries.data,
                shape.group,
                shape.dim,
                scale,
                HeadRows{&key_view, pages_of, shape.page_tokens, 0},
                HeadRows{&value_view, pages_of, shape.page_tokens, 0}};
  }
  std::uint32_t row_of(std::uint32_t t) const {
    if (shape.page_tokens == 0) return t;
    return static_cast<std::uint32_t>(table[t / shape.page_tokens]) * shape.page_tokens +
           t % shape.page_tokens;
  }
  bool kept(std::uint32_t g, std::uint32_t t) const {
    const std::uint32_t l = shape.per_query_head ? g : 0;
    for (std::uint32_t i = 0; i < counts[l]; ++i) {
      const kvsift_range &r = ranges.data[l * kMostTokens + i];
      if (r.begin <= t && t < r.end) return true;
    }
    return false;
  }
  double q(std::uint32_t g, std::uint32_t c) const {
    return static_cast<double>(queries.data[g * pad(shape) + c]);
  }
};

// Results of one attention, in buffers that end at unreadable memory.
struct Results {
  Buffer<float> out, log_sums, block_max, block_mass, chunk_max;
  Attended to;
  explicit Results(const Case &c)
      : out(c.shape.group * c.shape.dim),
        log_sums(c.shape.group),
        block_max(c.shape.group * c.blocks),
        block_mass(c.shape.group * c.blocks),
        chunk_max(c.shape.group * ((c.blocks + kChunk - 1) / kChunk)),
        to{out.data, log_sums.data,        block_max.data, block_mass.data,
           c.blocks, c.shape.block_tokens, c.blocks, JoinedShares{}, chunk_max.data} {}
  bool same(const Results &b, bool with_out = true) const {
    return (!with_out || same_bits(out.data, b.out.data, out.count * 4)) &&
           same_bits(log_sums.data, b.log_sums.data, log_sums.count * 4) &&
           same_bits(block_max.data, b.block_max.data, block_max.count * 4) &&
           same_bits(block_mass.data, b.block_mass.data, block_mass.count * 4);
  }
};

}  // namespace kvsift_test

// Attention over lists, with tails: against float64, against itself, and on every level.
#include "attend_cases.h"

// After the library's headers: it defines a macro named fail.
#include <setjmp.h>
#include <stdarg.h>
extern "C" {
#include <cmocka.h>
}

using namespace kvsift_test;

namespace {

const Kernels &reference() { return *kernels(Level::scalar); }

// One query head's attention in float64: terms are added one by one.
struct Oracle {
  double sum = 0, out[256] = {}, block_sum[kMostTokens] = {}, block_max[kMostTokens];
  double coded_largest = 0;  // weight of an int8 page by its scale
  std::uint32_t coded_pages = 0;

  void add(const RandomRows &values, std::uint32_t row, std::uint32_t dim, double logit) {
    const double p = std::exp(logit);
    sum += p;
    for (std::uint32_t c = 0; c < dim; ++c) out[c] += p * values.at(row, c);
  }
  void add_token(const Case &k, std::uint32_t g, std::uint32_t t, double weight) {
    add(k.values, k.row_of(t), k.shape.dim, logit(k, g, t) + std::log(weight));
  }
  static double logit(const Case &k, std::uint32_t g, std::uint32_t t) {
    double dot = 0;
    for (std::uint32_t c = 0; c < k.shape.dim; ++c) dot += k.q(g, c) * k.keys.at(k.row_of(t), c);
    return dot * static_cast<double>(k.scale);
  }
  void add_kept(const Case &k, std::uint32_t g) {
    for (std::uint32_t b = 0; b < k.blocks; ++b) block_max[b] = -INFINITY;
    for (std::uint32_t t = 0; t < k.shape.tokens; ++t) {
      if (!k.kept(g, t)) continue;
      const std::uint32_t b = t / k.shape.block_tokens;
      const double l = logit(k, g, t);
      add_token(k, g, t, 1.0);
      block_max[b] = std::fmax(block_max[b], l);
      block_sum[b] += std::exp(l);
    }
  }
  void add_moments(const Case &k, std::uint32_t g) {
    const Shape &s = k.shape;
    for (std::uint32_t b = 0; b < k.blocks; ++b) {
      if (block_max[b] > -INFINITY) continue;
      const PageFigures f(k.queries.data + g * padded_dim(s.dim), k.mean, k.deviation, b, s.dim);
      const std::uint32_t left = s.tokens - b * s.block_tokens;
      const double tokens = left < s.block_tokens ? left : s.block_tokens;
      const double scale = static_cast<double>(k.scale);
      const double logit = f.dot * scale + std::log(1 + f.square * scale * scale / 2) + std::log(tokens);
      add(k.value_mean, b, s.dim, logit);
      if (s.moments_type != KVSIFT_I8) continue;
      coded_largest = std::fmax(coded_largest, std::exp(logit) * static_cast<double>(k.value_mean.scale(b)));
      ++coded_pages;
    }
  }
  void add_coreset(const Case &k, std::uint32_t g) {
    for (std::uint32_t i = 0; i < k.tail.coreset_count; ++i)
      if (!k.kept(g, k.coreset[i]))
        add_token(k, g, k.coreset[i], static_cast<double>(k.weights[i]));
  }
};

// What weights of int8 pages lose: half of a 32767th of the largest for each page, times at most 127.
double coded_error(const Oracle &oracle) { return oracle.coded_pages * oracle.coded_largest * 127 / 65534 / oracle.sum; }

void check_head(const Case &k, const Results &got, std::uint32_t g) {
  static Oracle oracle;
  oracle = Oracle{};
  oracle.add_kept(k, g);
  if (k.shape.tail == KVSIFT_TAIL_MOMENTS) oracle.add_moments(k, g);
  if (k.shape.tail == KVSIFT_TAIL_BALANCE) oracle.add_coreset(k, g);
  const float lse = got.log_sums.data[g];
  if (oracle.sum == 0) {
    assert_true(lse == -INFINITY);
  } else {
    assert_true(std::fabs(static_cast<double>(lse) - std::log(oracle.sum)) < 2e-5);
  }
  for (std::uint32_t c = 0; c < k.shape.dim; ++c) {
    const double expected = oracle.sum == 0 ? 0 : oracle.out[c] / oracle.sum;
    const double rounding = oracle.coded_pages == 0 ? 0 : coded_error(oracle);
    assert_true(std::fabs(static_cast<double>(got.out.data[g * k.shape.dim + c]) - expected) < 2e-5 + rounding);
  }
  for (std::uint32_t b = 0; b < k.blocks; ++b) {
    const float m = got.block_max.data[g * k.blocks + b],
                mass = got.block_mass.data[g * k.blocks + b];
    if (oracle.block_max[b] > -INFINITY) {
      assert_true(std::fabs(static_cast<double>(m) - oracle.block_max[b]) < 2e-5);
      assert_true(std::fabs(static_cast<double>(mass) - oracle.block_sum[b] / oracle.sum) < 2e-5);
    } else {
      assert_true(m == -INFINITY && mass == 0.0f);
    }
  }
}

void test_oracle(void **) {
  Random random{11};
  for (std::uint32_t round = 0; round < 250; ++round) {
    const Case k(random, random_shape(random));
    const Results expected(k), got(k);
    attend(k.head(reference()), k.lists(), k.tail, expected.to);
    for (std::uint32_t g = 0; g < k.shape.group; ++g) check_head(k, expected, g);
    for_levels([&](const Kernels &level, const char *name) {
      attend(k.head(level), k.lists(), k.tail, got.to);
      if (!got.same(expected)) print_error("%s differs, round %u\n", name, round);
      assert_true(got.same(expected));
    });
    // Shares do not depend on maxima being asked for.
    std::memset(got.block_mass.data, 0xff, got.block_mass.count * sizeof(float));
    Attended lean = got.to;
    lean.block_max = nullptr;
    attend(k.head(reference()), k.lists(), k.tail, lean);
    assert_true(got.same(expected));
  }
}

// Shares of single tokens joined on the way are those of the query heads, joined afterwards.
void test_joined(void **) {
  Random random{16};
  for (std::uint32_t round = 0; round < 120; ++round) {
    Shape shape = random_shape(random);
    shape.block_tokens = 1;
    shape.per_query_head = false;
    shape.group = 1 + random.below(kHeads);
    const Case k(random, shape);
    const Results apart(k), got(k);
    Buffer<float> row(k.blocks), expected(k.blocks), weights(shape.group * k.blocks), sums(k.blocks);
    float ones[kHeads];
    for (float &one : ones) one = 1.0f;
    attend(k.head(reference()), k.lists(), k.tail, apart.to);
    Attended joined = got.to;
    joined.block_mass = nullptr;
    joined.joined = JoinedShares{row.data, weights.data, round % 2 != 0, round % 3 == 0 ? nullptr : sums.data};
    const auto join = joined.joined.largest ? reference().array.largest : reference().array.mean;
    join(apart.block_mass.data, k.blocks, shape.group, ones, expected.data, k.blocks);
    const auto check = [&](const Kernels &level, const char *) {
      std::memset(row.data, 0xff, row.count * sizeof(float));
      attend(k.head(level), k.lists(), k.tail, joined);
      assert_true(same_bits(row.data, expected.data, row.count * sizeof(float)));
      assert_true(same_bits(got.out.data, apart.out.data, got.out.count * sizeof(float)));
    };
    check(reference(), "scalar");
    for_levels(check);
  }
}

// Everything, however it is put, is one and the same thing, and needs no tail.
void test_everything(void **) {
  Random random{12};
  for (std::uint32_t round = 0; round < 60; ++round) {
    Case k(random, random_shape(random));
    const Results whole(k), cut(k), row(k);
    const kvsift_range all{0, k.shape.tokens},
        parts[] = {{0, k.shape.tokens / 3}, {k.shape.tokens / 3, k.shape.tokens}};
    const std::uint32_t one = 1, two = 2;
    attend(k.head(reference()), Lists{&all, &one, 1, false}, Tail{}, whole.to);
    attend(k.head(reference()), Lists{parts, &two, 2, false}, k.tail, cut.to);
    assert_true(k.shape.tokens < 3 || whole.same(cut));
    attend_row(k.head(reference()), k.shape.tokens, row.to);
    assert_true(whole.same(row, false));
  }
}

// A list for each query head or one for all: the same where the lists are the same.
void test_own_lists(void **) {
  Random random{13};
  for (std::uint32_t round = 0; round < 60; ++round) {
    Case k(random, random_shape(random));
    for (std::uint32_t l = 1; l < k.shape.group; ++l) {
      std::memcpy(k.ranges.data + l * kMostTokens, k.ranges.data,
                  sizeof(kvsift_range) * kMostTokens);
      k.counts[l] = k.counts[0];
    }
    const Results own(k), shared(k);
    k.shape.per_query_head = true;
    attend(k.head(reference()), k.lists(), k.tail, own.to);
    k.shape.per_query_head = false;
    attend(k.head(reference()), k.lists(), k.tail, shared.to);
    assert_true(own.same(shared));
  }
}

// The tail by itself, merged with the list by itself, is both; given page logits are those
// computed.
void test_tail(void **) {
  Random random{14};
  for (std::uint32_t round = 0; round < 80; ++round) {
    Case k(random, random_shape(random));
    const Results both(k), list(k), tail(k), given(k);
    attend(k.head(reference()), k.lists(), k.tail, both.to);
    attend(k.head(reference()), k.lists(), Tail{}, list.to);
    attend_tail(k.head(reference()), k.lists(), k.tail, tail.to);
    for (std::uint32_t g = 0; g < k.shape.group; ++g) {
      float *out = list.out.data + g * k.shape.dim;
      merge_attention(k.shape.dim, out, &list.log_sums.data[g], tail.out.data + g * k.shape.dim,
                      tail.log_sums.data[g]);
      for (std::uint32_t c = 0; c < k.shape.dim; ++c)
        assert_true(std::fabs(out[c] - both.out.data[g * k.shape.dim + c]) < 2e-5f);
      assert_true(both.log_sums.data[g] == list.log_sums.data[g] ||
                  std::fabs(both.log_sums.data[g] - list.log_sums.data[g]) < 2e-5f);
    }
    Buffer<float> logits(k.shape.group * k.blocks);
    moment_logits(reference(), k.queries.data, k.shape.group, k.scale, k.moments, 0, k.blocks,
                  logits.data, nullptr, k.blocks);
    k.tail.page_logits = logits.data;
    k.tail.page_stride = k.blocks;
    attend(k.head(reference()), k.lists(), k.tail, given.to);
    assert_true(given.same(both));
  }
}

// Every row of a prompt, however long, is what attend makes of it.
void test_prefill(void **) {
  Random random{15};
  for (std::uint32_t round = 0; round < 40; ++round) {
    Shape s = random_shape(random);
    const std::uint32_t rows = 1 + random.below(s.tokens < 60 ? s.tokens : 60);
    Case k(random, s);
    const RandomRows asked(random, kTypes[random.below(3)], rows * s.group, s.dim, 0, true);
    kvsift_view view = {};
    view.data = asked.bytes.data;
    view.type = asked.rows.type;
    view.head_stride = asked.stride;
    view.token_stride = asked.stride * s.group;
    Buffer<float> out(rows * s.group * s.dim);
    const auto check = [&](const Kernels &level, const char *) {
      Head head = k.head(level);
      const Prefill job{&level,   &view,   0,         s.group,
                        s.dim,    k.scale, head.keys, head.values,
                        s.tokens, rows,    out.data,  static_cast<std::size_t>(s.group) * s.dim};
      prefill_attend(job);
      head.queries = k.queries.data;
      for (std::uint32_t r = 0; r < rows; ++r) {
        prefill_queries(job, r, k.queries.data);
        const Results single(k);
        const kvsift_range seen{0, s.tokens - rows + r + 1};
        const std::uint32_t one = 1;
        attend(head, Lists{&seen, &one, 1, false}, Tail{}, single.to);
        assert_true(
            same_bits(single.out.data, out.data + r * s.group * s.dim, single.out.count * 4));
      }
    };
    check(reference(), "scalar");
    for_levels(check);
  }
}

}  // namespace

int main() {
  const CMUnitTest tests[] = {cmocka_unit_test(test_oracle), cmocka_unit_test(test_joined), cmocka_unit_test(test_everything),
                              cmocka_unit_test(test_own_lists), cmocka_unit_test(test_tail),
                              cmocka_unit_test(test_prefill)};
  return cmocka_run_group_tests(tests, nullptr, nullptr);
}

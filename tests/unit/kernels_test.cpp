// Kernels of every level against the scalar ones bit for bit, and those against float64.
#include "kernel_cases.h"
#include "kernels/one.h"

// After the library's headers: it defines a macro named fail.
#include <setjmp.h>
#include <stdarg.h>
extern "C" {
#include <cmocka.h>
}

using namespace kvsift_test;

namespace {

const Kernels &reference() { return *kernels(Level::scalar); }

void expect_same(const float *a, const float *b, std::size_t n, const char *what, const char *level,
                 std::uint32_t dim) {
  for (std::size_t i = 0; i < n; ++i) {
    if (same_bits(a + i, b + i, sizeof(float))) continue;
    print_error("%s, %s, dim %u: element %zu is %a, scalar %a\n", what, level, dim, i,
                static_cast<double>(a[i]), static_cast<double>(b[i]));
    fail();
  }
}

void check_dot(Random &random, kvsift_type type, std::uint32_t dim, std::uint32_t group,
               std::uint32_t count) {
  const RandomRows keys(random, type, count, dim, random.below(4));
  Buffer<float> queries(group * padded_dim(dim));
  Buffer<float> expected(group * count), got(group * count);
  fill_queries(random, queries, group, dim);
  const float scale = 0.125f + 0.1f * random.uniform();
  reference().attention.dot_rows(queries.data, group, keys.rows, count, dim, scale, expected.data,
                                 count);
  const AsList listed(keys);
  const Ahead ahead{listed.rows, random.below(count + 1), dim * element_bytes(type)};
  const auto check = [&](const Kernels &k, const char *level) {
    k.attention.dot_rows(queries.data, group, keys.rows, count, dim, scale, got.data, count);
    expect_same(got.data, expected.data, got.count, "dot_rows", level, dim);
    k.attention.dot_rows_ahead(queries.data, group, listed.rows, count, dim, scale, got.data, count, ahead);
    expect_same(got.data, expected.data, got.count, "dot_rows of a list", level, dim);
  };
  check(reference(), "scalar");
  for_levels(check);
  for (std::uint32_t i = 0; i < group * count; ++i) {
    double sum = 0, size = 0;
    for (std::uint32_t c = 0; c < dim; ++c) {
      const double x = keys.at(i % count, c) *
                       static_cast<double>(queries.data[i / count * padded_dim(dim) + c]);
      sum += x;
      size += std::fabs(x);
    }
    const double error =
        std::fabs(static_cast<double>(expected.data[i]) - sum * static_cast<double>(scale));
    assert_true(error <= 1e-5 * size + 1e-37);
  }
}

void check_weighted(Random &random, kvsift_type type, std::uint32_t dim, std::uint32_t group,
                    std::uint32_t count) {
  const RandomRows values(random, type, count, dim, random.below(4));
  const std::size_t n = group * padded_dim(dim);
  Buffer<float> weights(group * count), start(n), expected(n), got(n);
  fill(random, weights);
  for (std::size_t i = 0; i < n; ++i)
    start.data[i] = i % padded_dim(dim) < dim ? random.value() : 0.0f;
  std::memcpy(expected.data, start.data, n * sizeof(float));
  reference().attention.weighted_sum(weights.data, count, group, values.rows, count, dim,
                                     expected.data);
  const AsList listed(values);
  const Ahead ahead{listed.rows, count, dim * element_bytes(type)};
  const auto check = [&](const Kernels &k, const char *level) {
    std::memcpy(got.data, start.data, n * sizeof(float));
    k.attention.weighted_sum(weights.data, count, group, values.rows, count, dim, got.data);
    expect_same(got.data, expected.data, n, "weighted_sum", level, dim);
    std::memcpy(got.data, start.data, n * sizeof(float));
    k.attention.weighted_sum_ahead(weights.data, count, group, listed.rows, count, dim, got.data, ahead);
    expect_same(got.data, expected.data, n, "weighted_sum of a list", level, dim);
  };
  check(reference(), "scalar");
  for_levels(check);
  for (std::uint32_t i = 0; i < n; ++i) {
    const std::uint32_t g = i / padded_dim(dim), c = i % padded_dim(dim);
    double sum = static_cast<double>(start.data[i]), size = std::fabs(sum);
    for (std::uint32_t t = 0; t < count && c < dim; ++t) {
      const double x = values.at(t, c) * static_cast<double>(weights.data[g * count + t]);
      sum += x;
      size += std::fabs(x);
    }
    assert_true(std::fabs(static_cast<double>(expected.data[i]) - sum) <= 1e-5 * size + 1e-37);
  }
}

void test_rows_kernels(void **) {
  Random random{1};
  const std::uint32_t counts[] = {0, 1, 2, 3, 4, 5, 7, 8, 11, 16, 17, 36, 67};
  for (const kvsift_type type : kTypes) {
    for (std::uint32_t dim = 1; dim <= 256; ++dim) {
      const std::uint32_t group = 1 + dim % 16, count = counts[random.below(13)];
      check_dot(random, type, dim, group, count);
      check_weighted(random, type, dim, 16 - dim % 16, counts[random.below(13)]);
    }
    for (const std::uint32_t dim : {64u, 96u, 128u, 256u})
      for (std::uint32_t group = 1; group <= 16; ++group)
        for (const std::uint32_t count : counts) check_dot(random, type, dim, group, count);
  }
}

void test_softmax(void **) {
  Random random{2};
  for (std::uint32_t n = 1; n <= 300; ++n) {
    Buffer<float> logits(n), expected(n), got(n);
    for (std::uint32_t i = 0; i < n; ++i)
      logits.data[i] = random.uniform() * (n % 3 == 0 ? 200.0f : 8.0f);
    const float largest = reference().array.max(logits.data, n);
    std::memcpy(expected.data, logits.data, n * sizeof(float));
    const float sum = reference().attention.softmax(expected.data, n, largest);
    double total = 0;
    for (std::uint32_t i = 0; i < n; ++i) {
      const double p = std::exp(static_cast<double>(logits.data[i]) - static_cast<double>(largest));
      total += p;
      assert_true(std::fabs(p - static_cast<double>(expected.data[i])) <= 1e-6 * p + 1e-37);
    }
    assert_true(std::fabs(total - static_cast<double>(sum)) <= 1e-5 * total);
    for_levels([&](const Kernels &k, const char *level) {
      assert_true(k.array.max(logits.data, n) == largest);
      std::memcpy(got.data, logits.data, n * sizeof(float));
      const float own = k.attention.softmax(got.data, n, largest);
      expect_same(&own, &sum, 1, "softmax sum", level, n);
      expect_same(got.data, expected.data, n, "softmax", level, n);
    });
  }
}

void test_blocks(void **) {
  Random random{3};
  for (std::uint32_t round = 0; round < 400; ++round) {
    const std::uint32_t block = 1 + random.below(round % 2 ? 256 : 20), first = random.below(1000);
    const std::uint32_t n = 1 + random.below(256),
                        blocks = (first + n - 1) / block - first / block + 1;
    Buffer<float> row(n), largest(blocks), sums(blocks), got(blocks);
    fill(random, row);
    for (std::uint32_t b = 0; b < blocks; ++b) largest.data[b] = b == 0 ? 1.0f : -INFINITY;
    std::memset(sums.data, 0, blocks * sizeof(float));
    reference().attention.block_max(row.data, first, n, block, largest.data);
    reference().attention.block_sum(row.data, first, n, block, sums.data);
    for (std::uint32_t b = 0; b < blocks; ++b) {
      float m = b == 0 ? 1.0f : -INFINITY;
      double sum = 0, size = 0;
      for (std::uint32_t i = 0; i < n; ++i) {
        if ((first + i) / block - first / block != b) continue;
        m = std::fmax(m, row.data[i]);
        sum += static_cast<double>(row.data[i]);
        size += std::fabs(static_cast<double>(row.data[i]));
      }
      assert_true(largest.data[b] == m);
      assert_true(std::fabs(sum - static_cast<double>(sums.data[b])) <= 1e-6 * size);
    }
    for_levels([&](const Kernels &k, const char *level) {
      for (std::uint32_t b = 0; b < blocks; ++b) got.data[b] = b == 0 ? 1.0f : -INFINITY;
      k.attention.block_max(row.data, first, n, block, got.data);
      expect_same(got.data, largest.data, blocks, "block_max", level, block);
      std::memset(got.data, 0, blocks * sizeof(float));
      k.attention.block_sum(row.data, first, n, block, got.data);
      expect_same(got.data, sums.data, blocks, "block_sum", level, block);
    });
  }
}

void test_joined_rows(void **) {
  Random random{5};
  for (std::uint32_t n = 1; n < 100; n += 1 + n / 7) {
    const std::uint32_t group = 1 + random.below(16), stride = n + random.below(20);
    Buffer<float> rows(group * stride), mean(n), largest(n), got(n);
    float factors[16];
    fill(random, rows);
    for (float &factor : factors) factor = random.below(3) == 0 ? 1.0f : 0.25f + random.uniform();
    for (std::uint32_t i = 0; i < n; ++i) {
      float sum = 0, most = -INFINITY;
      for (std::uint32_t r = 0; r < group; ++r) {
        const float x = rows.data[r * stride + i] * factors[r];
        sum = r == 0 ? x : sum + x;
        most = x > most ? x : most;
      }
      mean.data[i] = 1.0f / static_cast<float>(group) * sum;
      largest.data[i] = most;
    }
    const auto check = [&](const Kernels &k, const char *level) {
      k.array.mean(rows.data, stride, group, factors, got.data, n);
      expect_same(got.data, mean.data, n, "mean", level, n);
      k.array.largest(rows.data, stride, group, factors, got.data, n);
      expect_same(got.data, largest.data, n, "largest", level, n);
    };
    check(reference(), "scalar");
    for_levels(check);
  }
}

void test_exp_log(void **) {
  constexpr std::uint32_t n = 1000003;
  Buffer<float> x(n), expected(n), got(n);
  double worst_exp = 0, worst_log = 0;
  for (std::uint32_t i = 0; i < n; ++i) x.data[i] = -86.8f + 175.5f * static_cast<float>(i) / n;
  reference().array.exp(x.data, 0.0f, expected.data, n);
  for (std::uint32_t i = 0; i < n; ++i) {
    const double e = std::exp(static_cast<double>(x.data[i]));
    worst_exp = std::fmax(worst_exp, std::fabs(static_cast<double>(expected.data[i]) / e - 1.0));
    assert_true(exp1(x.data[i]) == expected.data[i]);
  }
  for_levels([&](const Kernels &k, const char *level) {
    k.array.exp(x.data, 0.0f, got.data, n);
    expect_same(got.data, expected.data, n, "exp", level, 0);
  });
  for (std::uint32_t i = 0; i < n; ++i)
    x.data[i] =
        std::ldexp(1.0f + static_cast<float>(i % 1024) / 1024, static_cast<int>(i % 250) - 125);
  reference().array.log(x.data, expected.data, n);
  for (std::uint32_t i = 0; i < n; ++i) {
    const double e = std::log(static_cast<double>(x.data[i]));
    const double error = std::fabs(static_cast<double>(expected.data[i]) - e);
    worst_log = std::fmax(worst_log, e == 0 ? error : error / std::fabs(e));
    assert_true(log1(x.data[i]) == expected.data[i]);
  }
  for_levels([&](const Kernels &k, const char *level) {
    k.array.log(x.data, got.data, n);
    expect_same(got.data, expected.data, n, "log", level, 0);
  });
  print_message("largest relative error: exp %.3g, log %.3g\n", worst_exp, worst_log);
  assert_true(worst_exp < 1.3e-7 && worst_log < 1.5e-7);
}

void test_exp_log_edges(void **) {
  const float inf = INFINITY;
  float device_nan;  // what a GPU's arithmetic leaves; its low bits are where an exponent is added
  std::memset(&device_nan, 0xff, sizeof device_nan);
  const float x[] = {-inf, -1e30f, -87.0f, -0.0f, 0.0f, 89.0f, inf, NAN, device_nan, -device_nan};
  const float e[] = {0, 0, 0, 1, 1, inf, inf, inf, inf, inf};
  const float y[] = {0.0f, -0.0f, 1e-40f, 1.0f, inf, -1.0f};
  const float l[] = {-inf, -inf, -inf, 0.0f, inf, -inf};
  float out[10];
  const auto check = [&](const Kernels &k, const char *) {
    k.array.exp(x, 0.0f, out, 10);
    for (int i = 0; i < 10; ++i) assert_true(out[i] == e[i]);
    k.array.log(y, out, 6);
    for (int i = 0; i < 6; ++i) assert_true(out[i] == l[i]);
  };
  check(reference(), "scalar");
  if (for_levels(check) == 0) print_message("SKIP: this machine has no level besides scalar\n");
}

void test_counts(void **) {
  const auto check = [&](const Kernels &k, const char *) {
    for (std::uint32_t n = 0; n < 200; n += 1 + n / 7) {
      Buffer<float> x(n), shifted(n);
      std::uint32_t above = 0;
      for (std::uint32_t i = 0; i < n; ++i) {
        x.data[i] = i % 5 == 0 ? NAN : i % 7 == 0 ? -INFINITY : static_cast<float>(i * 37 % 11);
        above += x.data[i] > 4.0f;
      }
      assert_int_equal(k.array.count_above(x.data, n, 4.0f), above);
      std::uint32_t places[200], next = 0;
      assert_int_equal(k.array.places_above(x.data, n, 4.0f, 9, places), above);
      for (std::uint32_t i = 0; i < n; ++i) {
        if (x.data[i] > 4.0f) assert_int_equal(places[next++], 9 + i);
      }
      for (std::uint32_t i = 0; i < n; ++i) x.data[i] = static_cast<float>(i) / 3;
      const float end = static_cast<float>(n);
      assert_true(k.array.within(x.data, n, 0.0f, end + 1));
      for (std::uint32_t i = 0; i < n; ++i) {
        for (const float wrong : {-0.001f, end, NAN, -INFINITY, INFINITY}) {
          const float right = x.data[i];
          x.data[i] = wrong;
          assert_false(k.array.within(x.data, n, 0.0f, end));
          x.data[i] = right;
        }
      }
      k.array.exp(x.data, 0.1f, shifted.data, n);
      for (std::uint32_t i = 0; i < n; ++i) assert_true(shifted.data[i] == exp1(x.data[i] - 0.1f));
    }
  };
  check(reference(), "scalar");
  if (for_levels(check) == 0) print_message("SKIP: this machine has no level besides scalar\n");
}

}  // namespace

int main() {
  const CMUnitTest tests[] = {cmocka_unit_test(test_rows_kernels), cmocka_unit_test(test_softmax),
                              cmocka_unit_test(test_blocks), cmocka_unit_test(test_joined_rows), cmocka_unit_test(test_exp_log),
                              cmocka_unit_test(test_exp_log_edges), cmocka_unit_test(test_counts)};
  return cmocka_run_group_tests(tests, nullptr, nullptr);
}

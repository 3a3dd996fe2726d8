// Kernels of page summaries and of arrays: every level against scalar bit for bit, scalar against
// float64.
#include "attend/attend.h"
#include "kernel_cases.h"

// After the library's headers: it defines a macro named fail.
#include <setjmp.h>
#include <stdarg.h>
extern "C" {
#include <cmocka.h>
}

using namespace kvsift_test;

namespace {

const Kernels &reference() { return *kernels(Level::scalar); }

bool near(float got, double expected, double size) {
  return std::fabs(static_cast<double>(got) - expected) <= 2e-6 * size + 1e-37;
}

void test_append(void **) {
  Random random{21};
  for (std::uint32_t dim = 1; dim <= 256; ++dim) {
    const std::uint32_t n = 1 + random.below(40), cut = random.below(n), pad = padded_dim(dim);
    const RandomRows rows(random, kTypes[dim % 4], n, dim, random.below(3), true);
    Buffer<float> mean(pad), square(pad), deviation(pad), other(3 * pad);
    const auto run = [&](const Kernels &k, float *m, float *s, float *d) {
      for (std::uint32_t c = 0; c < pad; ++c) m[c] = s[c] = NAN;
      Rows rest = rows.rows;
      k.page.append(rest, cut, dim, 0, m, s);
      rest.data += cut * rest.stride;
      if (rest.scales != nullptr) rest.scales += cut;
      k.page.append(rest, n - cut, dim, cut, m, s);
      k.page.deviation(s, dim, n, d);
    };
    run(reference(), mean.data, square.data, deviation.data);
    for (std::uint32_t c = 0; c < pad; ++c) {
      double sum = 0, squares = 0;
      for (std::uint32_t i = 0; i < n && c < dim; ++i) sum += rows.at(i, c);
      for (std::uint32_t i = 0; i < n && c < dim; ++i)
        squares += std::pow(rows.at(i, c) - sum / n, 2);
      assert_true(near(mean.data[c], sum / n, 1));
      assert_true(near(deviation.data[c], std::sqrt(squares / n), 1));
    }
    for_levels([&](const Kernels &k, const char *) {
      run(k, other.data, other.data + pad, other.data + 2 * pad);
      assert_true(same_bits(other.data, mean.data, pad * 4));
      assert_true(same_bits(other.data + pad, square.data, pad * 4));
      assert_true(same_bits(other.data + 2 * pad, deviation.data, pad * 4));
    });
  }
}

void test_append_bounds(void **) {
  Random random{22};
  for (std::uint32_t dim = 1; dim <= 256; ++dim) {
    const std::uint32_t n = 1 + random.below(20), pad = padded_dim(dim);
    const RandomRows rows(random, kTypes[dim % 4], n, dim, random.below(3));
    Buffer<F16> low(pad), high(pad), low2(pad), high2(pad);
    reference().page.append_bounds(rows.rows, n, dim, true, low.data, high.data);
    for (std::uint32_t c = 0; c < pad; ++c) {
      double least = c < dim ? INFINITY : 0, most = -least;
      for (std::uint32_t i = 0; i < n && c < dim; ++i) {
        least = std::fmin(least, rows.at(i, c));
        most = std::fmax(most, rows.at(i, c));
      }
      // A bound, and none nearer in float16.
      const std::uint16_t l = low.data[c].bits, h = high.data[c].bits;
      assert_true(static_cast<double>(float_of_half(l)) <= least &&
                  most <= static_cast<double>(float_of_half(h)));
      assert_true(least - static_cast<double>(float_of_half(l)) <= std::fabs(least) / 1024 + 6e-8);
      assert_true(static_cast<double>(float_of_half(h)) - most <= std::fabs(most) / 1024 + 6e-8);
    }
    for_levels([&](const Kernels &k, const char *) {
      k.page.append_bounds(rows.rows, n, dim, true, low2.data, high2.data);
      assert_true(same_bits(low.data, low2.data, pad * 2) &&
                  same_bits(high.data, high2.data, pad * 2));
    });
  }
}

PageStatistics *statistics_of(const Kernels &k, kvsift_type type) {
  return type == KVSIFT_I8 ? k.page.coded_statistics : k.page.statistics;
}

// An int8 page's figures are near those of the query as it is: a code is off by at most half of a 127th of the largest, a
// square's code by half of its unit.
void test_codes(void **) {
  Random random{27};
  for (std::uint32_t round = 0; round < 200; ++round) {
    const std::uint32_t dim = 1 + random.below(256), pad = padded_dim(dim);
    const RandomRows mean(random, KVSIFT_I8, 1, pad, 0, true), deviation(random, KVSIFT_I8, 1, pad, 0, true);
    Buffer<float> query(pad);
    fill_queries(random, query, 1, dim);
    float dot, square;
    reference().page.coded_statistics(query.data, 1, mean.rows, deviation.rows, 1, 0, dim, true, &dot, &square, 1);
    double true_dot = 0, true_square = 0, means = 0, squares = 0, deviations = 0;
    for (std::uint32_t c = 0; c < dim; ++c) {
      const double q = static_cast<double>(query.data[c]), m = mean.at(0, c), d = deviation.at(0, c);
      true_dot += q * m;
      means += std::fabs(m);
      true_square += q * q * d * d;
      squares += q * q;
      deviations += d * d;
    }
    const double largest = static_cast<double>(largest_size(query.data, dim)), of_code = largest / 254;
    const double of_square = largest * of_code, half_unit = 64 * std::pow(static_cast<double>(deviation.scale(0)), 2);
    const double dot_error = means * of_code;
    const double square_error = deviations * of_square + (squares + dim * of_square) * half_unit;
    assert_true(std::fabs(static_cast<double>(dot) - true_dot) <= 1.0001 * dot_error);
    assert_true(std::fabs(static_cast<double>(square) - true_square) <= 1.0001 * square_error);
  }
}

void test_scores(void **) {
  Random random{23};
  for (std::uint32_t round = 0; round < 200; ++round) {
    const std::uint32_t dim = 1 + random.below(256), pad = padded_dim(dim),
                        group = 1 + random.below(16);
    const std::uint32_t pages = 1 + random.below(150), n = group * pages;
    const kvsift_type type = round % 2 ? KVSIFT_F16 : KVSIFT_I8;
    const RandomRows mean(random, type, pages, pad, 0, true),
        deviation(random, type, pages, pad, 0, true);
    Buffer<float> queries(group * pad), out(n), squares(n), sums(n), bounds(n), other(4 * n);
    fill_queries(random, queries, group, dim);
    const auto run = [&](PageStatistics *statistics, float *d, float *s, float *a) {
      statistics(queries.data, group, mean.rows, deviation.rows, pages, 0, dim, true, d, s, pages);
      statistics(queries.data, group, mean.rows, deviation.rows, pages, 0, dim, false, d, a, pages);
    };
    const auto run_bounds = [&](const Kernels &k, float *b) {
      k.page.bounds(queries.data, group, mean.rows, deviation.rows, pages, dim, 0.5f, b, pages);
    };
    run(statistics_of(reference(), type), out.data, squares.data, sums.data);
    run_bounds(reference(), bounds.data);
    for (std::uint32_t i = 0; i < n; ++i) {
      const float *query = queries.data + i / pages * pad;
      const PageFigures f(query, mean, deviation, i % pages, dim);
      double bound = 0;
      for (std::uint32_t c = 0; c < dim; ++c) {
        const double q = static_cast<double>(query[c]);
        bound += q > 0 ? q * deviation.at(i % pages, c) : q * mean.at(i % pages, c);
      }
      assert_true(near(out.data[i], f.dot, 5 * f.size) && near(squares.data[i], f.square, 5 * f.square));
      assert_true(near(sums.data[i], f.sum, 5 * f.size) && near(bounds.data[i], bound / 2, 5 * f.size));
    }
    const auto same = [&](PageStatistics *statistics) {
      run(statistics, other.data, other.data + n, other.data + 2 * n);
      assert_true(same_bits(other.data, out.data, n * 4));
      assert_true(same_bits(other.data + n, squares.data, n * 4));
      assert_true(same_bits(other.data + 2 * n, sums.data, n * 4));
    };
    for_levels([&](const Kernels &k, const char *) {
      same(statistics_of(k, type));
      run_bounds(k, other.data);
      assert_true(same_bits(other.data, bounds.data, n * 4));
    });
#if defined(__x86_64__)
    if (type == KVSIFT_I8 && machine_multiplies_int8(Level::avx512)) same(coded_statistics_vnni);
#endif
  }
}

void test_moment_logits(void **) {
  Random random{24};
  for (std::uint32_t round = 0; round < 100; ++round) {
    const std::uint32_t dim = 1 + random.below(256), pad = padded_dim(dim),
                        group = 1 + random.below(16);
    const std::uint32_t pages = 1 + random.below(150), size = 1 + random.below(64);
    const std::uint32_t open = 1 + random.below(size), first = random.below(pages),
                        n = pages - first;
    const kvsift_type type = round % 2 ? KVSIFT_F16 : KVSIFT_I8;
    RandomRows mean(random, type, pages, pad, 0, true),
        deviation(random, type, pages, pad, 0, true);
    Buffer<float> queries(group * pad), logits(group * n), peaks(group * n), scores(group * n);
    Buffer<float> other(3 * group * n);
    for (std::uint32_t i = 0; i < group * pad; ++i)
      queries.data[i] = i % pad < dim ? random.uniform() : 0.0f;
    const Moments moments{dim,
                          size,
                          (pages - 1) * size + open,
                          type,
                          mean.bytes.data,
                          deviation.bytes.data,
                          nullptr,
                          mean.scales.data,
                          deviation.scales.data,
                          nullptr};
    Moments m = moments;
    if (type == KVSIFT_F16) m.mean_scale = m.deviation_scale = nullptr;
    const float scale = 0.2f;
    moment_logits(reference(), queries.data, group, scale, m, first, n, logits.data, peaks.data, n);
    moment_scores(reference(), queries.data, group, scale, m, first, n, scores.data, n);
    for (std::uint32_t i = 0; i < group * n; ++i) {
      const std::uint32_t page = first + i % n;
      const PageFigures f(queries.data + i / n * pad, mean, deviation, page, dim);
      const double s = static_cast<double>(scale), tokens = page + 1 == pages ? open : size;
      assert_true(near(logits.data[i], s * f.dot + std::log(1 + s * s * f.square / 2) + std::log(tokens), 10));
      assert_true(near(peaks.data[i], s * f.dot + std::sqrt(2 * std::log(tokens) * s * s * f.square), 60));
      assert_true(near(scores.data[i], s * (f.dot + f.sum / 2), 60));
    }
    const auto same = [&](const Kernels &k, const Moments &of) {
      moment_logits(k, queries.data, group, scale, of, first, n, other.data, other.data + 2 * group * n, n);
      moment_scores(k, queries.data, group, scale, of, first, n, other.data + group * n, n);
      assert_true(same_bits(other.data, logits.data, group * n * 4));
      assert_true(same_bits(other.data + group * n, scores.data, group * n * 4));
      assert_true(same_bits(other.data + 2 * group * n, peaks.data, group * n * 4));
    };
    for_levels([&](const Kernels &k, const char *) { same(k, m); });
    if (!machine_multiplies_int8(Level::avx512)) continue;
    m.multiplies_int8 = true;
    same(*kernels(Level::avx512), m);
  }
}

void test_arrays(void **) {
  Random random{25};
  for (std::uint32_t n = 1; n <= 260; ++n) {
    Buffer<float> x(n), y(n), y2(n), back(n);
    Buffer<F16> half(n), half2(n);
    Buffer<std::int8_t> bytes(n), bytes2(n);
    fill(random, x);
    fill(random, y);
    std::memcpy(y2.data, y.data, n * 4);
    const float sum = reference().array.sum(x.data, n);
    reference().array.axpby(0.3f, y.data, 1.7f, x.data, n);
    reference().array.to_half(x.data, half.data, n);
    reference().array.from_half(half.data, back.data, n);
    const float scale = reference().array.to_int8(x.data, bytes.data, n);
    for (std::uint32_t i = 0; i < n; ++i) {
      assert_true(y.data[i] == std::fma(0.3f, y2.data[i], 1.7f * x.data[i]));
      assert_int_equal(half.data[i].bits, half_of_float(x.data[i]));
      assert_true(back.data[i] == float_of_half(half.data[i].bits));
      assert_true(std::fabs(scale * static_cast<float>(bytes.data[i]) - x.data[i]) <=
                  0.5001f * scale + 1e-30f);
    }
    for_levels([&](const Kernels &k, const char *) {
      Buffer<float> own(n);
      std::memcpy(own.data, y2.data, n * 4);
      k.array.axpby(0.3f, own.data, 1.7f, x.data, n);
      assert_true(same_bits(own.data, y.data, n * 4));
      const float own_sum = k.array.sum(x.data, n),
                  own_scale = k.array.to_int8(x.data, bytes2.data, n);
      assert_true(same_bits(&own_sum, &sum, 4) && same_bits(&own_scale, &scale, 4));
      assert_true(same_bits(bytes2.data, bytes.data, n));
      k.array.to_half(x.data, half2.data, n);
      assert_true(same_bits(half2.data, half.data, n * 2));
      k.array.from_half(half.data, own.data, n);
      assert_true(same_bits(own.data, back.data, n * 4));
    });
  }
}

void test_finite(void **) {
  Random random{26};
  const auto check = [&](const Kernels &k, const char *) {
    for (std::uint32_t dim = 1; dim <= 70; ++dim) {
      for (const kvsift_type type : {KVSIFT_F32, KVSIFT_F16, KVSIFT_BF16}) {
        RandomRows rows(random, type, 5, dim, 2);
        assert_true(k.array.rows_finite(rows.rows, 5, dim));
        const float bad[] = {INFINITY, -INFINITY, NAN};
        store_element(rows.bytes.data + random.below(5) * rows.stride +
                          random.below(dim) * element_bytes(type),
                      type, bad[dim % 3]);
        assert_false(k.array.rows_finite(rows.rows, 5, dim));
      }
      RandomRows bytes(random, KVSIFT_I8, 5, dim, 2);
      assert_true(k.array.rows_finite(bytes.rows, 5, dim));
      bytes.scales.data[random.below(5)] = NAN;
      assert_false(k.array.rows_finite(bytes.rows, 5, dim));
    }
  };
  check(reference(), "scalar");
  for_levels(check);
}

}  // namespace

int main() {
  const CMUnitTest tests[] = {cmocka_unit_test(test_append), cmocka_unit_test(test_append_bounds),
                              cmocka_unit_test(test_scores), cmocka_unit_test(test_codes), cmocka_unit_test(test_moment_logits),
                              cmocka_unit_test(test_arrays), cmocka_unit_test(test_finite)};
  return cmocka_run_group_tests(tests, nullptr, nullptr);
}

// Weighted sums of int8 rows in whole numbers: every level against scalar bit for bit, scalar against float64 of the rounded
// weights, which are near those that were given.
#include "kernel_cases.h"

// After the library's headers: it defines a macro named fail.
#include <setjmp.h>
#include <stdarg.h>
extern "C" {
#include <cmocka.h>
}

using namespace kvsift_test;

namespace {

constexpr std::uint32_t kStride = 300;  // of weights

struct Case {
  std::uint32_t dim, pad, group, count;
  RandomRows rows;
  Buffer<float> weights, out;

  explicit Case(Random &random)
      : dim(1 + random.below(256)),
        pad(padded_dim(dim)),
        group(1 + random.below(18)),
        count(1 + random.below(random.below(4) == 0 ? kCodedRows : 70)),
        rows(random, KVSIFT_I8, count, pad, 0),
        weights((group - 1) * kStride + count),
        out(group * pad) {
    // As a softmax gives them: from 1 down to next to nothing, and none at all for pages with kept tokens.
    for (std::size_t i = 0; i < weights.count; ++i)
      weights.data[i] = random.below(8) == 0 ? 0.0f : std::exp(9.0f * (random.uniform() - 1.0f));
    if (random.below(5) == 0) std::fill_n(weights.data, count, 0.0f);
  }

  void run(const Kernels &k, const Ahead &ahead) {
    std::fill_n(out.data, out.count, NAN);
    k.page.coded_values(weights.data, kStride, group, rows.rows, count, dim, out.data, ahead);
  }
};

void test_sums(void **) {
  Random random{28};
  for (std::uint32_t round = 0; round < 300; ++round) {
    Case c(random);
    c.run(*kernels(Level::scalar), Ahead{});
    for (std::uint32_t g = 0; g < c.group; ++g) {
      const float *weights = c.weights.data + g * kStride;
      float largest = 0.0f;
      for (std::uint32_t i = 0; i < c.count; ++i) largest = std::max(largest, weights[i] * c.rows.scale(i));
      const double unit = static_cast<double>(largest) / 32767;
      for (std::uint32_t d = 0; d < c.pad; ++d) {
        double exact = 0, rounding = 0;
        for (std::uint32_t i = 0; i < c.count; ++i) {
          exact += static_cast<double>(weights[i]) * c.rows.at(i, d);
          rounding += 0.501 * unit * std::fabs(c.rows.at(i, d) / static_cast<double>(c.rows.scale(i)));
        }
        const double got = static_cast<double>(c.out.data[g * c.pad + d]);
        assert_true(std::fabs(got - exact) <= rounding + 1e-6 * std::fabs(exact) + 1e-37);
      }
    }
  }
}

void test_levels(void **) {
  Random random{29};
  for (std::uint32_t round = 0; round < 300; ++round) {
    Case c(random);
    c.run(*kernels(Level::scalar), Ahead{});
    Buffer<float> reference(c.out.count);
    std::memcpy(reference.data, c.out.data, c.out.count * sizeof(float));
    const RandomRows coming(random, KVSIFT_I8, 1 + random.below(kCodedRows), c.pad, 0);
    for_levels([&](const Kernels &k, const char *) {
      c.run(k, random.below(2) == 0 ? Ahead{} : Ahead{coming.rows, coming.count, c.pad});
      assert_true(same_bits(c.out.data, reference.data, c.out.count * sizeof(float)));
    });
  }
}

// The largest sums there can be.
void test_extremes(void **) {
  Random random{30};
  RandomRows rows(random, KVSIFT_I8, kCodedRows, 64, 0);
  Buffer<float> weights(kCodedRows), out(64);
  std::fill_n(weights.data, kCodedRows, 1.0f);
  std::fill_n(rows.scales.data, kCodedRows, 0.5f);
  std::fill_n(rows.bytes.data, kCodedRows * 64, static_cast<std::uint8_t>(-127));
  for_levels([&](const Kernels &k, const char *) {
    k.page.coded_values(weights.data, kCodedRows, 1, rows.rows, kCodedRows, 64, out.data, Ahead{});
    for (std::uint32_t d = 0; d < 64; ++d) assert_true(std::fabs(out.data[d] + 127 * 0.5f * kCodedRows) < 0.01f);
  });
}

}  // namespace

int main() {
  const CMUnitTest tests[] = {cmocka_unit_test(test_sums), cmocka_unit_test(test_levels), cmocka_unit_test(test_extremes)};
  return cmocka_run_group_tests(tests, nullptr, nullptr);
}

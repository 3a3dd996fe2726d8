// BalanceKV's form by cuBLASLt. Where every product and sum is exact it keeps the practical form's very tokens; else it balances
// as well, by statistics.
#include "balance_figures.h"
#include "cublas_here.h"
#include "kernel_cases.h"

#include <setjmp.h>
#include <stdarg.h>
extern "C" {
#include <cmocka.h>
}

using namespace kvsift_test;

namespace {

kvsift_balance_config config_of(std::uint32_t form, std::uint32_t dim, std::uint32_t group, std::uint32_t halvings) {
  kvsift_balance_config c{};
  c.struct_size = sizeof c;
  assert_int_equal(kvsift_balance_config_init(&c, form), KVSIFT_OK);
  c.head_dim = dim;
  c.group_tokens = group;
  c.halvings = halvings;
  return c;
}

// Coordinates that are multiples of 1/4, up to `most` of them: of 32 or 64 tokens with 4, of 512 with 1 and few dimensions,
// means, TF32 and all sums are exact.
void make_exact(Random &random, Stored *rows, std::uint32_t most) {
  const std::uint32_t size = element_bytes(rows->view.type);
  for (std::uint64_t i = 0; i < rows->bytes / size; ++i) {
    const float quarters = static_cast<float>(random.below(2 * most + 1)) - static_cast<float>(most);
    store_element(rows->host + i * size, rows->view.type, rows->view.type == KVSIFT_I8 ? quarters : 0.25f * quarters);
  }
  for (std::size_t i = 0; i < rows->scales_on_device.count; ++i) rows->scales[i] = 0.25f;
  gpu_write(rows->on_device.data, rows->host, rows->bytes);
  gpu_write(rows->scales_on_device.data, rows->scales, rows->scales_on_device.count * sizeof(float));
}

struct Shape {
  std::uint32_t dim, group, halvings, heads, tokens, most;
  kvsift_type type;
};

void expect_practical_on_cpu(kvsift_balance_config c, const kvsift_cache &cache, const Compressed &got) {
  c.form = KVSIFT_BALANCE_PRACTICAL;
  std::uint64_t bytes;
  assert_int_equal(kvsift_balance_scratch_size(&c, cache.tokens, &bytes), KVSIFT_OK);
  void *scratch = std::aligned_alloc(64, bytes);
  Buffer<std::uint32_t> index(got.capacity);
  Buffer<float> weight(got.capacity);
  for (std::uint32_t h = 0; h < got.heads; ++h) {
    std::uint32_t count;
    must(kvsift_balance_compress(&c, &cache, h, kvsift_range{0, cache.tokens}, scratch, bytes, index.data, weight.data, got.capacity,
                                 &count, nullptr),
         *c.error);
    assert_int_equal(got.counts.data[h], count);
    assert_memory_equal(got.index.data + h * got.capacity, index.data, count * sizeof(std::uint32_t));
    assert_memory_equal(got.weight.data + h * got.capacity, weight.data, count * sizeof(float));
  }
  std::free(scratch);
}

void expect_practical(const Lender &lender, Random &random, const Shape &s) {
  Stored keys(random, s.type, s.tokens, s.heads, s.dim, random.below(3)), values(random, s.type, s.tokens, s.heads, s.dim, 0);
  make_exact(random, &keys, s.most);
  make_exact(random, &values, s.most);
  kvsift_balance_config c = config_of(KVSIFT_BALANCE_CUBLAS, s.dim, s.group, s.halvings);
  c.seed = random.next();
  c.temperature = 2.0f;
  c.error = const_cast<kvsift_error *>(&lender.error);
  const Compressed got(c, s.heads, s.tokens);
  must(got.prepare(lender, c, s.tokens), lender.error);
  must(got.run(lender, c, cache_of(keys.there(), values.there(), s.tokens)), lender.error);
  got.read();
  expect_practical_on_cpu(c, cache_of(keys.view, values.view, s.tokens), got);
}

void exact_sums_keep_the_practical_tokens(void **) {
  const Lender lender;
  for (std::uint32_t seed = 1; seed <= 16; ++seed) {
    Random random{seed * 7919u};
    const std::uint32_t halvings = 1 + random.below(3), tokens = (1u << halvings) + random.below(500);
    expect_practical(lender, random, {1 + random.below(32), random.below(2) == 0 ? 32u : 64u, halvings, 1 + random.below(3), tokens, 4,
                                      kTypes[seed % 4]});
  }
}

// More groups than there is room for at a time: 40 matrices of 2 MiB, then 20.
void many_groups_take_passes(void **) {
  const Lender lender;
  Random random{12};
  expect_practical(lender, random, {8, 512, 2, 2, 10240, 1, KVSIFT_F16});
}

// Values lean on a few directions, as those of a model do: random ones could not be balanced.
void lean(Random &random, Stored *rows) {
  auto *x = reinterpret_cast<float *>(rows->host);
  for (std::uint32_t i = 0; i < kTokens * kHeads; ++i) {
    const float a = random.uniform(), b = random.uniform();
    for (std::uint32_t c = 0; c < kDim; ++c) x[i * kDim + c] = 0.2f * x[i * kDim + c] + (c % 2 == 0 ? a : b);
  }
  gpu_write(rows->on_device.data, rows->host, rows->bytes);
}

void balances_as_well_as_practical(void **) {
  const Lender lender;
  Random random{20};
  Stored keys(random, KVSIFT_F32, kTokens, kHeads, kDim, 0), values(random, KVSIFT_F32, kTokens, kHeads, kDim, 0);
  lean(random, &keys);
  lean(random, &values);
  const kvsift_cache there = cache_of(keys.there(), values.there(), kTokens);
  double balance[3], error[3];
  std::uint32_t same = 0;
  const std::uint32_t forms[] = {KVSIFT_BALANCE_UNIFORM, KVSIFT_BALANCE_PRACTICAL, KVSIFT_BALANCE_CUBLAS};
  Buffer<std::uint32_t> practical(kHeads * kTokens / 2);
  for (std::uint32_t f = 0; f < 3; ++f) {
    kvsift_balance_config c = config_of(forms[f], kDim, kGroup, 1);
    c.error = const_cast<kvsift_error *>(&lender.error);
    const Compressed kept(c, kHeads, kTokens);
    must(kept.prepare(lender, c, kTokens), lender.error);
    must(kept.run(lender, c, there), lender.error);
    kept.read();
    for (std::uint32_t h = 0; h < kHeads; ++h) assert_int_equal(kept.counts.data[h], kTokens / 2);
    balance[f] = imbalance(c, keys, values, kept);
    error[f] = estimator_error(keys, values, kept);
    for (std::size_t i = 0; i < practical.count; ++i) {
      if (forms[f] == KVSIFT_BALANCE_PRACTICAL) practical.data[i] = kept.index.data[i];
      same += forms[f] == KVSIFT_BALANCE_CUBLAS && practical.data[i] == kept.index.data[i] ? 1 : 0;
    }
  }
  print_message("imbalance: uniform %.3f, practical %.3f, by cuBLASLt %.3f\n", balance[0], balance[1], balance[2]);
  print_message("estimator's error: uniform %.4f, practical %.4f, by cuBLASLt %.4f\n", error[0], error[1], error[2]);
  print_message("%.1f %% of the list are the practical form's tokens\n", 100.0 * same / static_cast<double>(practical.count));
  assert_true(balance[1] < 0.7 * balance[0]);
  assert_true(std::fabs(balance[2] / balance[1] - 1) < 0.2);
  assert_true(std::fabs(error[2] / error[1] - 1) < 0.2);
}

// One job for what follows.
struct Small {
  static constexpr std::uint32_t kCount = 300, kWide = 48;
  Random random{6};
  Stored keys{random, KVSIFT_F16, kCount, 2, kWide, 0}, values{random, KVSIFT_F16, kCount, 2, kWide, 0};
  Lender lender;
  kvsift_balance_config c = config_of(KVSIFT_BALANCE_CUBLAS, kWide, 64, 2);
  Compressed kept{c, 2, kCount};
  kvsift_cache there = cache_of(keys.there(), values.there(), kCount);
  Small() { c.error = &lender.error; }
  kvsift_status prepare() { return kept.prepare(lender, c, kCount); }
  kvsift_status run() { return kept.run(lender, c, there); }
};

void can_be_captured(void **) {
  Small s;
  must(s.prepare(), s.lender.error);
  gpu_wait();
  const std::uint64_t slow = gpu_calls(nullptr);
  must(s.run(), s.lender.error);
  assert_int_equal(gpu_calls(nullptr), slow);
  s.kept.read();
  Buffer<std::uint32_t> eager(s.kept.index.count);
  std::memcpy(eager.data, s.kept.index.data, eager.count * sizeof(std::uint32_t));
  gpu_begin_capture();
  must(s.run(), s.lender.error);
  const CUgraphExec graph = gpu_end_capture();
  for (std::uint32_t replay = 0; replay < 3; ++replay) {
    std::memset(s.kept.index.data, 0xff, eager.count * sizeof(std::uint32_t));
    gpu_write(s.kept.there.data, s.kept.index.data, eager.count * sizeof(std::uint32_t));
    gpu_replay(graph);
    s.kept.read();
    assert_memory_equal(s.kept.index.data, eager.data, eager.count * sizeof(std::uint32_t));
  }
  gpu_free_graph(graph);
}

void wants_to_be_prepared(void **) {
  Small s;
  assert_int_equal(s.run(), KVSIFT_OUT_OF_ORDER);
  assert_non_null(std::strstr(s.lender.error.message, "kvsift_cuda_balance_prepare"));
  // Other groups, other widths; fewer heads are the same.
  must(s.prepare(), s.lender.error);
  for (const bool wider : {false, true}) {
    kvsift_balance_config other = s.c;
    (wider ? other.head_dim : other.group_tokens) -= wider ? 8 : 32;
    const Compressed kept(other, 1, Small::kCount);
    const kvsift_status status = kept.run(s.lender, other, s.there);
    assert_int_equal(status, wider ? KVSIFT_OUT_OF_ORDER : KVSIFT_OK);
  }
  kvsift_balance_config exact = s.c;
  exact.form = KVSIFT_BALANCE_PRACTICAL;
  assert_int_equal(kvsift_cuda_balance_prepare(s.lender.policy, &exact, 2, Small::kCount, nullptr, 0, nullptr), KVSIFT_OK);
  const auto prepare = [&](char *room, std::uint64_t bytes) {
    return kvsift_cuda_balance_prepare(s.lender.policy, &s.c, 2, Small::kCount, room, bytes, gpu_stream());
  };
  assert_int_equal(prepare(nullptr, s.kept.bytes), KVSIFT_INVALID_ARGUMENT);
  assert_int_equal(prepare(s.kept.room.data, s.kept.bytes - 1), KVSIFT_ARENA_TOO_SMALL);
  assert_int_equal(prepare(s.kept.room.data + 64, s.kept.bytes), KVSIFT_MISALIGNED);
  assert_string_equal(s.lender.error.message, "room must start at a multiple of 256");
  must(s.run(), s.lender.error);
}

void failures_are_told(void **) {
  if (!gpu_is_mock()) skip();
  {
    Small s;
    must(s.prepare(), s.lender.error);
    gpu_wait();
    const std::int32_t alive = cublas_alive();
    // The n-th product of prepare, the fill before it: what was prepared stays.
    for (const std::uint32_t nth : {1u, 2u}) {
      gpu_fail("cublasLtMatmul", nth, CUBLAS_STATUS_EXECUTION_FAILED);
      assert_int_equal(s.prepare(), KVSIFT_DEVICE);
      assert_non_null(std::strstr(s.lender.error.message, "cublasLtMatmul answered "));
      assert_int_equal(cublas_alive(), alive);
    }
    gpu_fail("cuMemsetD8Async", 1, 719);
    assert_int_equal(s.prepare(), KVSIFT_DEVICE);
    gpu_fail("cublasLtCreate", 1, CUBLAS_STATUS_NOT_INITIALIZED);
    assert_int_equal(s.prepare(), KVSIFT_DEVICE);
    assert_string_equal(s.lender.error.message, "cublasLtCreate answered CUBLAS_STATUS_NOT_INITIALIZED (1)");
    must(s.run(), s.lender.error);
    // One that fails on the way loses the policy, until reset.
    gpu_fail("cublasLtMatmul", 1, CUBLAS_STATUS_EXECUTION_FAILED);
    assert_int_equal(s.run(), KVSIFT_DEVICE);
    assert_int_equal(s.run(), KVSIFT_DEVICE);
    gpu_wait();
    must(kvsift_cuda_policy_reset(s.lender.policy, gpu_stream()), s.lender.error);
    must(s.run(), s.lender.error);
    must(s.prepare(), s.lender.error);
    assert_int_equal(cublas_alive(), alive);
    // What is not finite is found.
    const std::uint16_t infinity = 0x7c00;
    gpu_write(s.values.on_device.data + 100, &infinity, sizeof infinity);
    must(s.run(), s.lender.error);
    gpu_wait();
    assert_int_equal(s.run(), KVSIFT_NOT_FINITE);
  }
  assert_int_equal(cublas_alive(), 0);
}

}  // namespace

int main() {
  if (!gpu_open() || !cublas_is_here()) return 77;
  cublas_alive();
  const CMUnitTest tests[] = {cmocka_unit_test(exact_sums_keep_the_practical_tokens),
                              cmocka_unit_test(many_groups_take_passes), cmocka_unit_test(balances_as_well_as_practical),
                              cmocka_unit_test(can_be_captured),
                              cmocka_unit_test(wants_to_be_prepared), cmocka_unit_test(failures_are_told)};
  return cmocka_run_group_tests(tests, nullptr, nullptr);
}

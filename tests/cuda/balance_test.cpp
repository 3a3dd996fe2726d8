// BalanceKV on the device against kvsift_balance_compress: the same tokens, the same weights.
#include "cuda/balance/compress.h"
#include "kvsift/kvsift_cuda.h"
#include "kernel_cases.h"
#include "lender.h"
#include "stored.h"

#include <setjmp.h>
#include <stdarg.h>
extern "C" {
#include <cmocka.h>
}

using namespace kvsift_test;

namespace {

CudaDevice device;

struct Case {
  kvsift_balance_config config;
  std::uint32_t heads, first_head;
  kvsift_range range;
  kvsift_type type;
};

Case random_case(Random &random, std::uint32_t seed) {
  Case c{};
  c.config.struct_size = sizeof c.config;
  assert_int_equal(kvsift_balance_config_init(&c.config, random.below(5) == 0 ? KVSIFT_BALANCE_UNIFORM : KVSIFT_BALANCE_PRACTICAL),
                   KVSIFT_OK);
  c.config.head_dim = 1 + random.below(random.below(2) == 0 ? 20 : 130);
  c.config.halvings = 1 + random.below(4);
  c.config.group_tokens = 32 + random.below(random.below(3) == 0 ? 480 : 100);
  c.config.weights = random.below(2);
  c.config.layer = random.below(5);
  c.config.seed = seed;
  c.config.temperature = random.below(2) == 0 ? 0.3f : 5.0f;
  c.heads = 1 + random.below(2);
  c.first_head = random.below(2);
  c.range.begin = random.below(30);
  c.range.end = c.range.begin + (1u << c.config.halvings) + random.below(random.below(4) == 0 ? 900 : 300);
  c.type = kTypes[random.below(4)];
  return c;
}

// A page table that holds the pages in another order.
struct Pages {
  std::uint32_t count, tokens;
  std::int32_t entries[64];
  Pages(Random &random, std::uint32_t all, std::uint32_t page_tokens) : count((all + page_tokens - 1) / page_tokens), tokens(page_tokens) {
    for (std::uint32_t i = 0; i < count; ++i) entries[i] = static_cast<std::int32_t>(i);
    for (std::uint32_t i = count; i > 1; --i) {
      const std::uint32_t k = random.below(i);
      const std::int32_t entry = entries[k];
      entries[k] = entries[i - 1];
      entries[i - 1] = entry;
    }
  }
};

void compare(const Case &c, const kvsift_cache &cache, const kvsift_cache &there) {
  const std::uint32_t tokens = c.range.end - c.range.begin, capacity = tokens >> c.config.halvings;
  BalancePlan plan;
  assert_int_equal(settle_balance(c.config, &plan), KVSIFT_OK);
  kvsift_error error{};
  assert_int_equal(check_balance_form(plan, &error), KVSIFT_OK);
  const OnDevice<char> room(balance_places(plan, c.heads, tokens).bytes);
  const OnDevice<std::uint32_t> index(c.heads * capacity), counts(c.heads);
  const OnDevice<float> weight(c.heads * capacity);
  const BalanceJob job{plan, there, c.first_head, c.heads, c.range, index.data, weight.data, counts.data, capacity, nullptr};
  must(compress_heads(Launcher{device, gpu_stream(), &error}, job, room.data), error);
  Buffer<std::uint32_t> got_index(index.count), got_counts(c.heads), expected_index(capacity);
  Buffer<float> got_weight(weight.count), expected_weight(capacity);
  index.read(got_index.data);
  weight.read(got_weight.data);
  counts.read(got_counts.data);
  std::uint64_t bytes;
  assert_int_equal(kvsift_balance_scratch_size(&c.config, tokens, &bytes), KVSIFT_OK);
  void *scratch = std::aligned_alloc(64, bytes);
  for (std::uint32_t h = 0; h < c.heads; ++h) {
    std::uint32_t count;
    assert_int_equal(kvsift_balance_compress(&c.config, &cache, c.first_head + h, c.range, scratch, bytes, expected_index.data,
                                             expected_weight.data, capacity, &count, nullptr),
                     KVSIFT_OK);
    assert_int_equal(got_counts.data[h], count);
    assert_memory_equal(got_index.data + h * capacity, expected_index.data, count * sizeof(std::uint32_t));
    assert_memory_equal(got_weight.data + h * capacity, expected_weight.data, count * sizeof(float));
  }
  std::free(scratch);
}

void keeps_the_cpus_tokens(void **) {
  for (std::uint32_t seed = 1; seed <= 24; ++seed) {
    Random random{seed * 104729u};
    const Case c = random_case(random, seed);
    const std::uint32_t heads = c.first_head + c.heads, page_tokens = 32;
    const bool paged = random.below(2) == 0;
    const std::uint32_t rows = (c.range.end + page_tokens - 1) / page_tokens * page_tokens;
    const Stored keys(random, c.type, rows, heads, c.config.head_dim, random.below(3));
    const Stored values(random, c.type, rows, heads, c.config.head_dim, 0);
    const Pages pages(random, rows, page_tokens);
    const OnDevice<std::int32_t> table(pages.count, pages.entries);
    kvsift_cache cache{};
    cache.struct_size = sizeof cache;
    cache.tokens = c.range.end;
    cache.page_tokens = page_tokens;
    cache.keys = keys.view;
    cache.values = values.view;
    kvsift_cache there = cache;
    there.keys = keys.there();
    there.values = values.there();
    for (kvsift_view *view : {&cache.keys, &cache.values, &there.keys, &there.values}) {
      view->page_stride = page_tokens * view->token_stride;
      if (view->scales != nullptr) view->scale_page_stride = page_tokens * view->scale_token_stride;
    }
    cache.block_table = paged ? pages.entries : nullptr;
    there.block_table = paged ? table.data : nullptr;
    compare(c, cache, there);
  }
}

void says_what_it_lacks(void **) {
  kvsift_balance_config config{};
  config.struct_size = sizeof config;
  assert_int_equal(kvsift_balance_config_init(&config, KVSIFT_BALANCE_THEORY), KVSIFT_OK);
  config.head_dim = 16;
  BalancePlan plan;
  assert_int_equal(settle_balance(config, &plan), KVSIFT_OK);
  kvsift_error error{};
  assert_int_equal(check_balance_form(plan, &error), KVSIFT_UNSUPPORTED);
  assert_string_equal(error.message, "form is 1: the device has the practical form, exact and by cuBLASLt, and uniform sampling");
}

void works_by_the_header(void **) {
  Lender lender;
  kvsift_balance_config config{};
  config.struct_size = sizeof config;
  assert_int_equal(kvsift_balance_config_init(&config, KVSIFT_BALANCE_PRACTICAL), KVSIFT_OK);
  config.head_dim = 16;
  config.group_tokens = 32;
  config.error = &lender.error;
  constexpr std::uint32_t kTokens = 100, kHeads = 2, kCapacity = kTokens / 4;
  Random random{5};
  Stored keys(random, KVSIFT_F32, kTokens, kHeads, 16, 0);
  const Stored values(random, KVSIFT_F16, kTokens, kHeads, 16, 0);
  kvsift_cache cache{};
  cache.struct_size = sizeof cache;
  cache.tokens = kTokens;
  cache.keys = keys.there();
  cache.values = values.there();
  std::uint64_t bytes;
  must(kvsift_cuda_balance_room(&config, kHeads, kTokens, &bytes), lender.error);
  const OnDevice<char> room(bytes);
  const OnDevice<std::uint32_t> index(kHeads * kCapacity), counts(kHeads);
  const OnDevice<float> weight(kHeads * kCapacity);
  const auto compress = [&](std::uint64_t room_bytes, std::uint32_t capacity) {
    return kvsift_cuda_balance_compress(lender.policy, &config, &cache, 0, kHeads, kvsift_range{0, kTokens}, room.data, room_bytes,
                                        index.data, weight.data, capacity, counts.data, gpu_stream());
  };
  assert_int_equal(compress(bytes - 1, kCapacity), KVSIFT_ARENA_TOO_SMALL);
  assert_int_equal(compress(bytes, kCapacity - 1), KVSIFT_INVALID_ARGUMENT);
  must(compress(bytes, kCapacity), lender.error);
  std::uint32_t got[kHeads];
  counts.read(got);
  for (const std::uint32_t count : got) assert_int_equal(count, kCapacity);
  // What the device finds wrong is answered by the next call.
  const float nan = std::nanf("");
  gpu_write(keys.on_device.data + 40, &nan, sizeof nan);
  must(compress(bytes, kCapacity), lender.error);
  gpu_wait();
  assert_int_equal(compress(bytes, kCapacity), KVSIFT_NOT_FINITE);
}

}  // namespace

int main() {
  if (!gpu_open()) return 77;
  kvsift_error error{};
  must(open_device(&device, &error), error);
  const CMUnitTest tests[] = {cmocka_unit_test(keeps_the_cpus_tokens), cmocka_unit_test(says_what_it_lacks),
                              cmocka_unit_test(works_by_the_header)};
  const int failures = cmocka_run_group_tests(tests, nullptr, nullptr);
  close_device(&device);
  return failures;
}

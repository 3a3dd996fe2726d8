// Attention of prompts on the device against the CPU's, to the bit: types, layouts, groups, chunks; what lies behind the prompt
// is not looked at.
#include "both.h"
#include "stored.h"

using namespace kvsift_test;

namespace {

kvsift_policy_config random_config(Random &random) {
  constexpr std::uint32_t kDims[] = {1, 8, 16, 24, 40, 64, 72, 128, 200, 256};
  kvsift_policy_config c{};
  c.struct_size = sizeof c;
  if (kvsift_policy_config_init(&c, KVSIFT_METHOD_FULL) != KVSIFT_OK) fail();
  c.layers = 1;
  c.kv_heads = 1 + random.below(2);
  c.query_heads = c.kv_heads * (1 + random.below(random.below(4) == 0 ? KVSIFT_MAX_GROUP : 5));
  c.head_dim = kDims[random.below(10)];
  c.max_tokens = 800;
  c.softmax_scale = random.below(2) == 0 ? 0.0f : 0.4f;
  return c;
}

// Rows behind the prompt that hold no numbers.
void spoil(const Stored &rows, std::uint32_t tokens) {
  if (rows.view.type == KVSIFT_I8) return;
  const std::uint64_t at = tokens * rows.view.token_stride;
  std::memset(rows.host + at, 0xff, rows.bytes - at);
  gpu_write(rows.on_device.data, rows.host, rows.bytes);
}

std::uint64_t several_chunks, of_type[5];

void run_case(std::uint32_t seed) {
  Random random{seed * 7919u + 5};
  const kvsift_policy_config config = random_config(random);
  const Both both(config);
  const std::uint32_t tokens = 1 + random.below(random.below(2) == 0 ? 790 : 60), rows = 1 + random.below(tokens < 90 ? tokens : 90);
  const kvsift_type type = kTypes[random.below(4)];
  const bool mixed = random.below(5) == 0;
  const std::uint32_t gap = random.below(2) == 0 ? 0 : 16 - config.head_dim % 16;
  const Stored keys(random, type, 800, config.kv_heads, config.head_dim, gap);
  const Stored values(random, mixed ? kTypes[random.below(4)] : type, 800, config.kv_heads, config.head_dim, gap);
  const Stored queries(random, KVSIFT_F32, rows, config.query_heads, config.head_dim, random.below(3));
  spoil(keys, tokens);
  spoil(values, tokens);
  kvsift_query query{};
  query.struct_size = sizeof query;
  query.tokens = tokens;
  query.rows = rows;
  query.view = queries.view;
  kvsift_cache cache{};
  cache.struct_size = sizeof cache;
  cache.tokens = tokens;
  cache.keys = keys.view;
  cache.values = values.view;
  const std::uint64_t count = std::uint64_t{rows} * config.query_heads * config.head_dim;
  Buffer<float> out(count), got(count);
  std::memset(got.data, 0xff, count * sizeof(float));
  const OnDevice<float> there(count, got.data);
  both.must_on_cpu(kvsift_prefill_attend(both.cpu, 0, &query, &cache, out.data));
  query.view = queries.there();
  cache.keys = keys.there();
  cache.values = values.there();
  both.must_on_device(kvsift_cuda_prefill_attend(both.device, 0, &query, &cache, there.data, gpu_stream()));
  there.read(got.data);
  for (std::uint64_t i = 0; i < count; ++i) {
    if (same_bits(out.data + i, got.data + i, sizeof(float))) continue;
    fail_msg("seed %u, type %u, %u dimensions, %u of %u tokens: element %llu is %a on the device, %a on the CPU", seed, type,
             config.head_dim, rows, tokens, static_cast<unsigned long long>(i), static_cast<double>(got.data[i]),
             static_cast<double>(out.data[i]));
  }
  both.must_on_device(kvsift_cuda_advance(both.device, tokens, gpu_stream()));
  several_chunks += tokens > 256;
  ++of_type[mixed ? 4 : type];
}

void outputs_are_the_cpus(void **) {
  for (std::uint32_t seed = 0; seed < 80; ++seed) run_case(seed);
  print_message("%llu prompts of several chunks\n", static_cast<unsigned long long>(several_chunks));
  for (const std::uint64_t cases : of_type) assert_true(cases > 2);
  assert_true(several_chunks > 20);
}

kvsift_policy_config small_config() {
  Random random{1};
  kvsift_policy_config c = random_config(random);
  c.kv_heads = 1, c.query_heads = 2, c.head_dim = 16;
  return c;
}

// 20 rows of 300 tokens; f(query, cache) makes them wrong. The next call says so.
template <class F>
void expect_fault(kvsift_status expected, F f) {
  Random random{3};
  const Both both(small_config());
  const Stored rows(random, KVSIFT_F16, 320, 2, 16, 0);
  std::int32_t pages[20];
  for (std::int32_t i = 0; i < 20; ++i) pages[i] = i;
  const OnDevice<std::int32_t> table(20, pages);
  const OnDevice<float> out(20 * 2 * 16);
  kvsift_query query{};
  query.struct_size = sizeof query;
  query.tokens = 300;
  query.rows = 20;
  query.view = rows.there();
  kvsift_cache cache{};
  cache.struct_size = sizeof cache;
  cache.tokens = 300;
  cache.keys = cache.values = rows.there();
  cache.keys.page_stride = cache.values.page_stride = 16 * rows.view.token_stride;
  cache.block_table = table.data;
  cache.page_tokens = 16;
  f(rows, table);
  assert_int_equal(kvsift_cuda_prefill_attend(both.device, 0, &query, &cache, out.data, gpu_stream()), KVSIFT_OK);
  gpu_wait();
  assert_int_equal(kvsift_cuda_advance(both.device, 300, gpu_stream()), expected);
}

void faults_are_told(void **) {
  expect_fault(KVSIFT_OK, [](const Stored &, const OnDevice<std::int32_t> &) {});
  expect_fault(KVSIFT_OK, [](const Stored &, const OnDevice<std::int32_t> &table) {
    const std::int32_t minus = -1;
    gpu_write(table.data + 19, &minus, sizeof minus);
  });
  expect_fault(KVSIFT_INVALID_ARGUMENT, [](const Stored &, const OnDevice<std::int32_t> &table) {
    const std::int32_t minus = -1;
    gpu_write(table.data + 18, &minus, sizeof minus);
  });
  expect_fault(KVSIFT_NOT_FINITE, [](const Stored &rows, const OnDevice<std::int32_t> &) {
    const std::uint16_t nan = 0x7e00;
    gpu_write(rows.on_device.data + 280 * rows.view.token_stride, &nan, sizeof nan);
  });
}

void bad_calls_change_nothing(void **) {
  const Both both(small_config());
  Random random{3};
  const Stored rows(random, KVSIFT_F16, 30, 2, 16, 0);
  const OnDevice<float> out(20 * 2 * 16);
  kvsift_query query{};
  query.struct_size = sizeof query;
  query.tokens = 20;
  query.rows = 21;
  query.view = rows.there();
  kvsift_cache cache{};
  cache.struct_size = sizeof cache;
  cache.tokens = 20;
  cache.keys = cache.values = rows.there();
  const auto call = [&] { return kvsift_cuda_prefill_attend(both.device, 0, &query, &cache, out.data, gpu_stream()); };
  assert_int_equal(call(), KVSIFT_INVALID_ARGUMENT);
  assert_non_null(std::strstr(kvsift_cuda_last_error(both.device), "query->rows is 21"));
  query.rows = 20;
  assert_int_equal(kvsift_cuda_prefill_attend(both.device, 0, nullptr, &cache, out.data, gpu_stream()), KVSIFT_INVALID_ARGUMENT);
  assert_int_equal(kvsift_cuda_prefill_attend(both.device, 0, &query, nullptr, out.data, gpu_stream()), KVSIFT_INVALID_ARGUMENT);
  assert_int_equal(kvsift_cuda_prefill_attend(both.device, 0, &query, &cache, nullptr, gpu_stream()), KVSIFT_INVALID_ARGUMENT);
  assert_int_equal(kvsift_cuda_prefill_attend(both.device, 1, &query, &cache, out.data, gpu_stream()), KVSIFT_INVALID_ARGUMENT);
  query.tokens = 0;
  query.rows = 0;
  assert_int_equal(call(), KVSIFT_INVALID_ARGUMENT);
  query.tokens = query.rows = 20;
  assert_int_equal(call(), KVSIFT_OK);
  assert_int_equal(kvsift_cuda_advance(both.device, 20, gpu_stream()), KVSIFT_OK);
  assert_int_equal(call(), KVSIFT_OUT_OF_ORDER);
}

}  // namespace

int main() {
  if (!gpu_open()) return 77;
  const CMUnitTest tests[] = {cmocka_unit_test(outputs_are_the_cpus), cmocka_unit_test(faults_are_told),
                              cmocka_unit_test(bad_calls_change_nothing)};
  return cmocka_run_group_tests(tests, nullptr, nullptr);
}

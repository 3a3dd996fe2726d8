/* What goes wrong: arguments, the driver, and what the device finds in the data. */
#define _GNU_SOURCE /* setenv */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>

#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cases.h"
#include "device_session.h"
#include "gpu.h"

static kvsift_error error;

static kvsift_policy_config small_config(kvsift_method method) {
  kvsift_policy_config c = {.struct_size = sizeof c};
  assert_int_equal(kvsift_policy_config_init(&c, method), KVSIFT_OK);
  c.layers = 1;
  c.kv_heads = 2;
  c.query_heads = 4;
  c.head_dim = 16;
  c.max_tokens = 64;
  c.block_tokens = c.page_tokens = 4;
  c.dense_layers = 0;
  c.dense_tokens = KVSIFT_DENSE_OFF;
  c.sink_tokens = 4;
  c.local_tokens = 4;
  c.budget_tokens = 16;
  c.error = &error;
  return c;
}

static bool only_mock(void) {
  if (gpu_is_mock()) return true;
  print_message("skipped: only the stand-in fails when told to\n");
  return false;
}

static void build_has_cuda(void **state) {
  (void)state;
  kvsift_build_info info = {.struct_size = sizeof info};
  assert_int_equal(kvsift_get_build_info(&info), KVSIFT_OK);
  assert_int_equal(info.cuda, 1);
}

static void create_names_what_failed(void **state) {
  (void)state;
  if (!only_mock()) skip();
  static const char *const calls[] = {"cuDeviceGetCount", "cuCtxGetCurrent", "cuCtxGetDevice", "cuDeviceGetAttribute",
                                      "cuLibraryLoadData", "cuLibraryGetKernel", "cuKernelGetFunction", "cuFuncSetAttribute",
                                      "cuMemHostGetDevicePointer", "cuMemsetD8Async", "cuMemcpyHtoDAsync", "cuLaunchKernelEx"};
  const kvsift_policy_config c = small_config(KVSIFT_METHOD_ATTENTION_PREDICTOR);
  kvsift_cuda_arenas arenas = device_arenas(&c);
  kvsift_cuda_policy *policy = (kvsift_cuda_policy *)1;
  for (size_t i = 0; i < sizeof calls / sizeof calls[0]; ++i) {
    gpu_fail(calls[i], 1, 2);
    assert_int_equal(kvsift_cuda_policy_create(&c, &arenas, gpu_stream(), &policy), KVSIFT_DEVICE);
    assert_null(policy);
    assert_non_null(strstr(error.message, calls[i]));
    assert_non_null(strstr(error.message, "CUDA_ERROR_OUT_OF_MEMORY (2)"));
  }
  gpu_fail("cuInit", 1, 100);
  assert_int_equal(kvsift_cuda_policy_create(&c, &arenas, gpu_stream(), &policy), KVSIFT_NO_DEVICE);
  assert_int_equal(kvsift_cuda_policy_create(&c, &arenas, gpu_stream(), &policy), KVSIFT_OK);
  assert_int_equal(kvsift_cuda_policy_destroy(policy), KVSIFT_OK);
  assert_int_equal(kvsift_cuda_policy_destroy(policy), KVSIFT_INVALID_ARGUMENT);
  device_arenas_free(&arenas);
}

static void create_without_a_device(void **state) {
  (void)state;
  if (!only_mock()) skip();
  const kvsift_policy_config c = small_config(KVSIFT_METHOD_QUEST);
  kvsift_cuda_arenas arenas = device_arenas(&c);
  kvsift_cuda_policy *policy;
  char *driver = strdup(getenv("KVSIFT_CUDA_DRIVER"));
  setenv("KVSIFT_CUDA_DRIVER", "/nonexistent/libcuda.so.1", 1);
  assert_int_equal(kvsift_cuda_policy_create(&c, &arenas, NULL, &policy), KVSIFT_NO_DEVICE);
  assert_string_equal(error.message, "no CUDA device: /nonexistent/libcuda.so.1 could not be opened");
  setenv("KVSIFT_CUDA_DRIVER", "libc.so.6", 1);
  assert_int_equal(kvsift_cuda_policy_create(&c, &arenas, NULL, &policy), KVSIFT_NO_DEVICE);
  assert_string_equal(error.message, "no CUDA device: libc.so.6 has no cuInit, a newer driver is needed");
  setenv("KVSIFT_CUDA_DRIVER", driver, 1);
  setenv("KVSIFT_MOCK_DEVICES", "0", 1);
  assert_int_equal(kvsift_cuda_policy_create(&c, &arenas, NULL, &policy), KVSIFT_NO_DEVICE);
  unsetenv("KVSIFT_MOCK_DEVICES");
  free(driver);
  device_arenas_free(&arenas);
}

/* Sixteen query heads of 256 dimensions are too many for a device with 99 KiB of shared memory a block, eight are not. */
static void create_on_a_small_device(void **state) {
  (void)state;
  if (!only_mock()) skip();
  kvsift_policy_config c = small_config(KVSIFT_METHOD_PAGE_STATS);
  kvsift_cuda_policy *policy;
  c.head_dim = 256;
  setenv("KVSIFT_MOCK_SHARED_BYTES", "101376", 1);
  setenv("KVSIFT_MOCK_SHARED_LIMIT", "100208", 1);
  for (uint32_t group = 8; group <= 16; group += 8) {
    c.query_heads = c.kv_heads * group;
    kvsift_cuda_arenas arenas = device_arenas(&c);
    const kvsift_status wanted = group == 8 ? KVSIFT_OK : KVSIFT_UNSUPPORTED;
    assert_int_equal(kvsift_cuda_policy_create(&c, &arenas, gpu_stream(), &policy), wanted);
    if (wanted == KVSIFT_OK) assert_int_equal(kvsift_cuda_policy_destroy(policy), KVSIFT_OK);
    device_arenas_free(&arenas);
  }
  assert_non_null(strstr(error.message, "bytes of shared memory a block and some of its own, the device has 101376"));
  unsetenv("KVSIFT_MOCK_SHARED_BYTES");
  unsetenv("KVSIFT_MOCK_SHARED_LIMIT");
}

static void arenas_are_checked(void **state) {
  (void)state;
  const kvsift_policy_config c = small_config(KVSIFT_METHOD_PAGE_STATS);
  const kvsift_cuda_arenas right = device_arenas(&c);
  kvsift_cuda_policy *policy;
  kvsift_cuda_arenas wrong = right;
  wrong.device_bytes -= 1;
  assert_int_equal(kvsift_cuda_policy_create(&c, &wrong, NULL, &policy), KVSIFT_ARENA_TOO_SMALL);
  assert_non_null(strstr(error.message, "arenas->device_bytes"));
  wrong = right;
  wrong.host = (char *)wrong.host + 8;
  assert_int_equal(kvsift_cuda_policy_create(&c, &wrong, NULL, &policy), KVSIFT_MISALIGNED);
  wrong = right;
  wrong.pinned = NULL;
  assert_int_equal(kvsift_cuda_policy_create(&c, &wrong, NULL, &policy), KVSIFT_INVALID_ARGUMENT);
  wrong.struct_size = 4;
  assert_int_equal(kvsift_cuda_policy_create(&c, &wrong, NULL, &policy), KVSIFT_INVALID_STRUCT_SIZE);
  wrong = right;
  device_arenas_free(&wrong);
}

static void unsupported_configurations_say_so(void **state) {
  (void)state;
  kvsift_cuda_sizes sizes = {.struct_size = sizeof sizes};
  kvsift_policy_config c = small_config(KVSIFT_METHOD_BALANCE);
  c.tail = KVSIFT_TAIL_BALANCE;
  c.balance_form = KVSIFT_BALANCE_THEORY;
  assert_int_equal(kvsift_cuda_policy_sizes(&c, &sizes), KVSIFT_UNSUPPORTED);
}

static toy *small_toy(const kvsift_policy_config *c) {
  return toy_new(3, c, (toy_form){.type = KVSIFT_F32, .page_tokens = 8});
}

/* A failed launch in the n-th place of a step loses the policy; reset makes it like new. */
static void failed_launches_lose_the_policy(void **state) {
  (void)state;
  if (!only_mock()) skip();
  const kvsift_policy_config c = small_config(KVSIFT_METHOD_PAGE_STATS);
  toy *t = small_toy(&c);
  device_session *d = device_session_new(&c, t);
  session *fresh = session_new(&c, t);
  const kvsift_view keys = device_view(d, TOY_KEY, 0, 0);
  kvsift_query q = {.struct_size = sizeof q, .tokens = 30, .view = device_view(d, TOY_QUERY, 0, 29)};
  const kvsift_cache cache = device_cache(d, 0, 30);
  for (uint32_t nth = 1; nth <= 5; ++nth) {
    gpu_fail("cuLaunchKernelEx", nth, 719);
    kvsift_status status = kvsift_cuda_observe_keys(d->policy, 0, NULL, 0, 30, &keys, NULL, gpu_stream());
    if (status == KVSIFT_OK) status = kvsift_cuda_select_blocks(d->policy, 0, &q, NULL, gpu_stream());
    if (status == KVSIFT_OK) status = kvsift_cuda_attend(d->policy, 0, &q, &cache, d->out, NULL, gpu_stream());
    expect(status == KVSIFT_DEVICE, "launch %u failed, the status is %d", nth, status);
    const char *sentence = kvsift_cuda_last_error(d->policy);
    assert_non_null(strstr(sentence, "cuLaunchKernelEx for kvsift_"));
    assert_non_null(strstr(sentence, "CUDA_ERROR_LAUNCH_FAILED (719)"));
    assert_int_equal(kvsift_cuda_advance(d->policy, 30, gpu_stream()), KVSIFT_DEVICE);
    assert_int_equal(kvsift_cuda_policy_reset(d->policy, gpu_stream()), KVSIFT_OK);
    expect_same_state(fresh, d);
  }
  gpu_fail("cuLaunchKernelEx", 0, 0);
  session_free(fresh);
  device_session_free(d);
  toy_free(t);
}

/* What the device finds is told by a later call, and until reset. */
static void expect_fault(device_session *d, kvsift_status wanted, const char *word) {
  gpu_wait();
  const kvsift_status status = kvsift_cuda_advance(d->policy, 0, gpu_stream());
  expect(status == wanted, "status %d, not %d: %s", status, wanted, kvsift_cuda_last_error(d->policy));
  expect(strstr(kvsift_cuda_last_error(d->policy), word) != NULL, "%s", kvsift_cuda_last_error(d->policy));
  assert_int_equal(kvsift_cuda_advance(d->policy, 0, gpu_stream()), wanted);
  assert_int_equal(kvsift_cuda_policy_reset(d->policy, gpu_stream()), KVSIFT_OK);
}

static void bad_data_is_found(void **state) {
  (void)state;
  const kvsift_policy_config c = small_config(KVSIFT_METHOD_PAGE_STATS);
  toy *t = small_toy(&c);
  device_session *d = device_session_new(&c, t);
  const float nan_value = nanf("");
  const int32_t minus = -1;
  const kvsift_view keys = device_view(d, TOY_KEY, 0, 0), query = device_view(d, TOY_QUERY, 0, 29);
  kvsift_query q = {.struct_size = sizeof q, .tokens = 30, .view = query};
  float saved;
  int32_t entry;
  gpu_read(&saved, keys.data, sizeof saved);
  gpu_write((void *)keys.data, &nan_value, sizeof nan_value);
  must(NULL, kvsift_cuda_observe_keys(d->policy, 0, NULL, 0, 30, &keys, NULL, gpu_stream()));
  expect_fault(d, KVSIFT_NOT_FINITE, "keys");
  gpu_write((void *)keys.data, &saved, sizeof saved);
  gpu_read(&saved, query.data, sizeof saved);
  gpu_write((void *)query.data, &nan_value, sizeof nan_value);
  must(NULL, kvsift_cuda_observe_keys(d->policy, 0, NULL, 0, 30, &keys, NULL, gpu_stream()));
  must(NULL, kvsift_cuda_select_blocks(d->policy, 0, &q, NULL, gpu_stream()));
  expect_fault(d, KVSIFT_NOT_FINITE, "query");
  gpu_write((void *)query.data, &saved, sizeof saved);
  const kvsift_cache cache = device_cache(d, 0, 30);
  gpu_read(&entry, cache.block_table, sizeof entry);
  gpu_write((void *)cache.block_table, &minus, sizeof minus);
  must(NULL, kvsift_cuda_observe_keys(d->policy, 0, NULL, 0, 30, &keys, NULL, gpu_stream()));
  must(NULL, kvsift_cuda_select_blocks(d->policy, 0, &q, NULL, gpu_stream()));
  must(NULL, kvsift_cuda_attend(d->policy, 0, &q, &cache, d->out, NULL, gpu_stream()));
  expect_fault(d, KVSIFT_INVALID_ARGUMENT, "block_table");
  device_session_free(d);
  toy_free(t);
}

static void order_and_arguments(void **state) {
  (void)state;
  const kvsift_policy_config c = small_config(KVSIFT_METHOD_QUEST);
  toy *t = small_toy(&c);
  device_session *d = device_session_new(&c, t);
  kvsift_cuda_policy *p = d->policy;
  const kvsift_view keys = device_view(d, TOY_KEY, 0, 0);
  kvsift_query q = {.struct_size = sizeof q, .tokens = 20, .view = device_view(d, TOY_QUERY, 0, 19)};
  kvsift_cache cache = device_cache(d, 0, 20);
  assert_int_equal(kvsift_cuda_observe_keys(p, 1, NULL, 0, 20, &keys, NULL, NULL), KVSIFT_INVALID_ARGUMENT);
  assert_int_equal(kvsift_cuda_observe_keys(p, 0, NULL, 5, 20, &keys, NULL, NULL), KVSIFT_OUT_OF_ORDER);
  assert_int_equal(kvsift_cuda_observe_keys(p, 0, NULL, 0, 65, &keys, NULL, NULL), KVSIFT_CAPACITY);
  assert_int_equal(kvsift_cuda_observe_keys(p, 0, NULL, 0, 20, NULL, NULL, NULL), KVSIFT_INVALID_ARGUMENT);
  assert_int_equal(kvsift_cuda_select_blocks(p, 0, &q, NULL, NULL), KVSIFT_OUT_OF_ORDER);
  assert_int_equal(kvsift_cuda_attend(p, 0, &q, &cache, d->out, NULL, NULL), KVSIFT_OUT_OF_ORDER);
  assert_int_equal(kvsift_cuda_observe_keys(p, 0, NULL, 0, 20, &keys, NULL, gpu_stream()), KVSIFT_OK);
  assert_int_equal(kvsift_cuda_advance(p, 21, NULL), KVSIFT_OUT_OF_ORDER);
  assert_int_equal(kvsift_cuda_select_blocks(p, 0, NULL, NULL, NULL), KVSIFT_INVALID_ARGUMENT);
  assert_int_equal(kvsift_cuda_select_blocks(p, 0, &q, NULL, gpu_stream()), KVSIFT_OK);
  assert_int_equal(kvsift_cuda_attend(p, 0, &q, &cache, NULL, NULL, NULL), KVSIFT_INVALID_ARGUMENT);
  cache.tokens = 19;
  assert_int_equal(kvsift_cuda_attend(p, 0, &q, &cache, d->out, NULL, NULL), KVSIFT_INVALID_ARGUMENT);
  assert_int_equal(kvsift_cuda_predict_next(p, 0, NULL, NULL), KVSIFT_UNSUPPORTED);
  assert_int_equal(kvsift_cuda_advance(NULL, 1, NULL), KVSIFT_INVALID_ARGUMENT);
  assert_string_equal(kvsift_cuda_last_error(NULL), "");
  device_session_free(d);
  toy_free(t);
}

static void copies_are_whole(void **state) {
  (void)state;
  const kvsift_policy_config c = small_config(KVSIFT_METHOD_PAGE_STATS);
  toy *t = small_toy(&c);
  session *s = session_new(&c, t);
  device_session *d = device_session_new(&c, t), *copy = device_session_new(&c, t);
  session_prompt(s, 30);
  session_steps(s, 2);
  assert_int_equal(kvsift_cuda_upload(d->policy, s->policy, gpu_stream()), KVSIFT_OK);
  d->tokens = s->tokens;
  expect_same_state(s, d);
  assert_int_equal(kvsift_cuda_policy_destroy(copy->policy), KVSIFT_OK);
  assert_int_equal(kvsift_cuda_fork(d->policy, &copy->arenas, gpu_stream(), &copy->policy), KVSIFT_OK);
  copy->tokens = s->tokens;
  expect_same_state(s, copy);
  run_both(s, copy, 2);
  kvsift_policy_config other = c;
  other.budget_tokens += 4;
  session *stranger = session_new(&other, t);
  assert_int_equal(kvsift_cuda_download(d->policy, stranger->policy, gpu_stream()), KVSIFT_CONFIG_MISMATCH);
  session_free(stranger);
  session_free(s);
  device_session_free(d);
  device_session_free(copy);
  toy_free(t);
}

int main(void) {
  if (!gpu_open()) return 77;
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(build_has_cuda), cmocka_unit_test(create_names_what_failed), cmocka_unit_test(create_without_a_device),
      cmocka_unit_test(create_on_a_small_device), cmocka_unit_test(arenas_are_checked),
      cmocka_unit_test(unsupported_configurations_say_so), cmocka_unit_test(failed_launches_lose_the_policy), cmocka_unit_test(bad_data_is_found),
      cmocka_unit_test(order_and_arguments), cmocka_unit_test(copies_are_whole)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}

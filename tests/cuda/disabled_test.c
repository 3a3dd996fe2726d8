/* A build without CUDA has the device's functions, and they say that there is none. */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>

#include <cmocka.h>
#include <kvsift/kvsift_cuda.h>
#include <string.h>

static void says_that_there_is_no_cuda(void **state) {
  (void)state;
  kvsift_error error = {0};
  kvsift_build_info info = {.struct_size = sizeof info};
  kvsift_policy_config config = {.struct_size = sizeof config};
  kvsift_cuda_policy *policy = (kvsift_cuda_policy *)&config;
  assert_int_equal(kvsift_get_build_info(&info), KVSIFT_OK);
  assert_int_equal(info.cuda, 0);
  assert_int_equal(kvsift_policy_config_init(&config, KVSIFT_METHOD_QUEST), KVSIFT_OK);
  config.error = &error;
  assert_int_equal(kvsift_cuda_policy_create(&config, NULL, NULL, &policy), KVSIFT_NO_DEVICE);
  assert_null(policy);
  assert_string_equal(error.message, "this build of the library has no CUDA");
  assert_int_equal(kvsift_cuda_policy_create(NULL, NULL, NULL, NULL), KVSIFT_INVALID_ARGUMENT);
  assert_int_equal(kvsift_cuda_balance_prepare(NULL, NULL, 1, 64, NULL, 0, NULL), KVSIFT_INVALID_ARGUMENT);
  assert_int_equal(kvsift_cuda_advance(NULL, 1, NULL), KVSIFT_INVALID_ARGUMENT);
  assert_string_equal(kvsift_cuda_last_error(NULL), "");
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(says_that_there_is_no_cuda)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}

// The building blocks of the kernels against the CPU's kernels, bit for bit.
#include "cuda/core/device.h"
#include "cuda/core/probe.h"
#include "kernel_cases.h"
#include "kernels/one.h"
#include "on_device.h"

#include <cstdio>

// After the library's headers: it defines a macro named fail.
#include <setjmp.h>
#include <stdarg.h>
extern "C" {
#include <cmocka.h>
}

using namespace kvsift_test;

namespace {

CudaDevice device;

template <class Args>
void run(KernelId kernel, std::uint32_t blocks, const Args &args) {
  kvsift_error error{};
  if (launch(device, kernel, LaunchShape{blocks, 1, 1, 256, 0}, gpu_stream(), args, &error) == KVSIFT_OK) return;
  print_error("%s\n", error.message);
  fail();
}

void dot_has_the_cpus_bits(void **) {
  Random random{1};
  for (int round = 0; round < 20; ++round) {
    const std::uint32_t dim = 8 * (1 + random.below(32)), count = 1 + random.below(300);
    const RandomRows rows(random, KVSIFT_F16, count, dim, 0);
    Buffer<float> query(padded_dim(dim)), expected(count), got(count);
    fill_queries(random, query, 1, dim);
    kernels(Level::scalar)->attention.dot_rows(query.data, 1, rows.rows, count, dim, 1.0f, expected.data, count);
    const OnDevice<float> on_query(query.count, query.data), out(count);
    const OnDevice<std::uint8_t> on_rows(rows.bytes.count, rows.bytes.data);
    run(kKernel_probe_dot, (2 * count + 255) / 256, ProbeDotArgs{on_query.data, on_rows.data, count, dim, out.data});
    out.read(got.data);
    for (std::uint32_t i = 0; i < count; ++i) {
      if (std::isnan(expected.data[i]) && std::isnan(got.data[i])) continue;
      assert_true(same_bits(expected.data + i, got.data + i, sizeof(float)));
    }
  }
}

void exp_and_log_have_the_cpus_bits(void **) {
  constexpr std::uint32_t kCount = 1 << 16;
  Buffer<float> x(kCount), exps(kCount), logs(kCount);
  for (std::uint32_t i = 0; i < kCount; ++i) x.data[i] = float_of_bits(i << 16 | (i * 2654435761u >> 16));
  x.data[0x7fff] = float_of_bits(0x7fffffff);  // the NaN that a device's arithmetic gives
  const OnDevice<float> in(kCount, x.data), on_exps(kCount), on_logs(kCount);
  run(kKernel_probe_exp, kCount / 256, ProbeExpArgs{in.data, kCount, on_exps.data, on_logs.data});
  on_exps.read(exps.data);
  on_logs.read(logs.data);
  for (std::uint32_t i = 0; i < kCount; ++i) {
    const float e = exp1(x.data[i]), l = log1(x.data[i]);
    assert_true(same_bits(&e, exps.data + i, sizeof e));
    if (std::isnan(x.data[i])) continue;
    assert_true(same_bits(&l, logs.data + i, sizeof l) || (std::isnan(l) && std::isnan(logs.data[i])));
  }
}

void failed_calls_are_named(void **) {
  if (!gpu_is_mock()) {
    print_message("skipped: only the stand-in's calls fail when told to\n");
    skip();
  }
  const char *const calls[] = {"cuInit", "cuDeviceGetCount", "cuCtxGetCurrent", "cuCtxGetDevice", "cuDeviceGetAttribute",
                               "cuLibraryLoadData", "cuLibraryGetKernel", "cuKernelGetFunction"};
  for (const char *call : calls) {
    CudaDevice other;
    kvsift_error error{};
    gpu_fail(call, 1, 2);
    const kvsift_status status = open_device(&other, &error);
    assert_int_equal(status, std::strcmp(call, "cuInit") == 0 ? KVSIFT_NO_DEVICE : KVSIFT_DEVICE);
    assert_int_equal(error.status, status);
    assert_non_null(std::strstr(error.message, call));
    assert_non_null(std::strstr(error.message, "CUDA_ERROR_OUT_OF_MEMORY (2)"));
  }
  kvsift_error error{};
  gpu_fail("cuLaunchKernelEx", 1, 719);
  const ProbeExpArgs nothing{nullptr, 0, nullptr, nullptr};
  assert_int_equal(launch(device, kKernel_probe_exp, LaunchShape{1, 1, 1, 256, 0}, gpu_stream(), nothing, &error),
                   KVSIFT_DEVICE);
  assert_string_equal(error.message, "cuLaunchKernelEx for kvsift_probe_exp answered CUDA_ERROR_LAUNCH_FAILED (719)");
}

}  // namespace

int main() {
  if (!gpu_open()) return 77;
  kvsift_error error{};
  if (open_device(&device, &error) != KVSIFT_OK) {
    std::printf("%s\n", error.message);
    return 1;
  }
  const CMUnitTest tests[] = {cmocka_unit_test(dot_has_the_cpus_bits), cmocka_unit_test(exp_and_log_have_the_cpus_bits),
                              cmocka_unit_test(failed_calls_are_named)};
  const int failures = cmocka_run_group_tests(tests, nullptr, nullptr);
  close_device(&device);
  return failures;
}

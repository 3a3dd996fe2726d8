// The products that are left to cuBLASLt, against the host's within TF32's rounding; and what becomes of its errors. On a device
// this is the real library's test.
#include "cuda/balance/products.h"
#include "cublas_here.h"
#include "kernel_cases.h"
#include "on_device.h"
#include "policy_on_device.h"

#include <setjmp.h>
#include <stdarg.h>
extern "C" {
#include <cmocka.h>
}

using namespace kvsift_test;

namespace {

// A coordinate loses at most 2^-10 of itself, cut or rounded; the sum in float32 far less.
constexpr double kTolerance = 0x1p-9;

struct Job {
  std::uint32_t order, depth, batch;
  Buffer<float> x;
  OnDevice<float> there, out;
  OnDevice<char> workspace;
  Job(Random &random, std::uint32_t o, std::uint32_t d, std::uint32_t b)
      : order(o), depth(d), batch(b), x(std::size_t{b} * o * d), there(x.count), out(std::size_t{b} * o * o), workspace(kProductWorkspace) {
    for (std::size_t i = 0; i < x.count; ++i) x.data[i] = random.uniform() * 3.0f;
    gpu_write(there.data, x.data, x.count * sizeof(float));
  }
  const float *row(std::uint32_t matrix, std::uint32_t i) const {
    return x.data + (std::size_t{matrix} * order + i) * depth;
  }
};

// The largest error, in units of the sum of what was added without its signs.
double worst_error(const Job &job, std::uint32_t batch) {
  Buffer<float> got(job.out.count);
  job.out.read(got.data);
  double worst = 0;
  for (std::uint32_t m = 0; m < batch; ++m) {
    for (std::uint32_t i = 0; i < job.order; ++i) {
      for (std::uint32_t j = 0; j < job.order; ++j) {
        double sum = 0, size = 0;
        for (std::uint32_t c = 0; c < job.depth; ++c) {
          const double product = double{job.row(m, i)[c]} * double{job.row(m, j)[c]};
          sum += product;
          size += std::fabs(product);
        }
        const double error = std::fabs(double{got.data[(std::size_t{m} * job.order + i) * job.order + j]} - sum) / size;
        if (!(error <= worst)) worst = error;  // NaN too
      }
    }
  }
  return worst;
}

void products_are_the_hosts(void **) {
  Random random{7};
  const std::uint32_t shapes[][3] = {{64, 8, 1}, {64, 24, 5}, {128, 64, 3}, {256, 128, 4}, {512, 256, 2}};
  for (const auto &shape : shapes) {
    const Job job(random, shape[0], shape[1], shape[2]);
    Products products;
    kvsift_error error{};
    must(make_products(&products, job.order, job.depth, job.batch, &error), error);
    // Fewer than it was made for, and all.
    for (std::uint32_t batch = 1; batch <= job.batch; batch += job.batch > 1 ? job.batch - 1 : 1) {
      must(multiply(products, job.there.data, job.out.data, job.workspace.data, batch, gpu_stream(), &error), error);
      const double worst = worst_error(job, batch);
      print_message("%u of %u x %u: worst error %.2e of the sum's size\n", batch, job.order, job.depth, worst);
      assert_true(worst < kTolerance);
    }
    gpu_wait();
    release_products(&products);
  }
  assert_int_equal(cublas_alive(), 0);
}

void each_call_may_fail(void **) {
  if (!gpu_is_mock()) skip();
  static const char *const calls[] = {"cublasLtCreate", "cublasLtMatmulDescCreate", "cublasLtMatmulDescSetAttribute",
                                      "cublasLtMatrixLayoutCreate", "cublasLtMatrixLayoutSetAttribute",
                                      "cublasLtMatmulPreferenceCreate", "cublasLtMatmulPreferenceSetAttribute",
                                      "cublasLtMatmulAlgoGetHeuristic"};
  Products products;
  kvsift_error error{};
  for (const char *call : calls) {
    for (std::uint32_t nth = 1;; ++nth) {
      gpu_fail(call, nth, CUBLAS_STATUS_ALLOC_FAILED);
      const kvsift_status status = make_products(&products, 64, 16, 2, &error);
      if (status == KVSIFT_OK) {  // it has no such call
        assert_true(nth > 1);
        release_products(&products);
        break;
      }
      assert_int_equal(status, KVSIFT_DEVICE);
      char sentence[100];
      std::snprintf(sentence, sizeof sentence, "%s answered CUBLAS_STATUS_ALLOC_FAILED (3)", call);
      assert_string_equal(error.message, sentence);
      assert_int_equal(products.order, 0);
      assert_int_equal(cublas_alive(), 0);
    }
    gpu_fail(call, 1, CUBLAS_STATUS_NOT_SUPPORTED);
    assert_int_equal(make_products(&products, 64, 16, 2, &error), KVSIFT_UNSUPPORTED);
    gpu_fail(call, 1, 99);
    assert_int_equal(make_products(&products, 64, 16, 2, &error), KVSIFT_DEVICE);
    assert_non_null(std::strstr(error.message, "answered unknown status (99)"));
  }
  gpu_fail("", 0, 0);
}

void a_product_may_fail(void **) {
  if (!gpu_is_mock()) skip();
  Random random{3};
  const Job job(random, 64, 16, 2);
  Products products;
  kvsift_error error{};
  must(make_products(&products, job.order, job.depth, job.batch, &error), error);
  for (const char *call : {"cublasLtMatrixLayoutSetAttribute", "cublasLtMatmul"}) {
    gpu_fail(call, 1, CUBLAS_STATUS_INVALID_VALUE);
    assert_int_equal(multiply(products, job.there.data, job.out.data, job.workspace.data, 2, gpu_stream(), &error), KVSIFT_DEVICE);
    assert_non_null(std::strstr(error.message, call));
    assert_non_null(std::strstr(error.message, "answered CUBLAS_STATUS_INVALID_VALUE (7)"));
  }
  release_products(&products);
}

// As the environment's KVSIFT_CUBLASLT names it.
kvsift_status open_at(const char *path, kvsift_error *error) {
  const char *was = std::getenv("KVSIFT_CUBLASLT");
  char *saved = was == nullptr ? nullptr : strdup(was);
  Products products;
  setenv("KVSIFT_CUBLASLT", path, 1);
  const kvsift_status status = make_products(&products, 64, 16, 2, error);
  if (status == KVSIFT_OK) release_products(&products);
  if (saved == nullptr) unsetenv("KVSIFT_CUBLASLT");
  else setenv("KVSIFT_CUBLASLT", saved, 1);
  std::free(saved);
  return status;
}

void a_machine_may_lack_it(void **) {
  kvsift_error error{};
  assert_int_equal(open_at("/nonexistent/libcublasLt.so.13", &error), KVSIFT_UNSUPPORTED);
  assert_string_equal(error.message, "no cuBLASLt: /nonexistent/libcublasLt.so.13 could not be opened");
  assert_int_equal(open_at("libc.so.6", &error), KVSIFT_UNSUPPORTED);
  assert_string_equal(error.message, "no cuBLASLt: libc.so.6 has no cublasLtCreate");
}

}  // namespace

int main() {
  if (!gpu_open() || !cublas_is_here()) return 77;
  cublas_alive();
  const CMUnitTest tests[] = {cmocka_unit_test(products_are_the_hosts), cmocka_unit_test(each_call_may_fail),
                              cmocka_unit_test(a_product_may_fail), cmocka_unit_test(a_machine_may_lack_it)};
  return cmocka_run_group_tests(tests, nullptr, nullptr);
}

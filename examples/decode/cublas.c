#include "cublas.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>

#include "memory.h"

#define WORKSPACE_BYTES (4u << 20)

/* Numbers of cublasLt.h that are used here. Plain float32: the results differ from the engine's own
 * in nothing but the order of additions. */
enum {
  TYPE_FLOAT = 0,     /* CUDA_R_32F */
  COMPUTE_FLOAT = 68, /* CUBLAS_COMPUTE_32F */
  TRANSPOSED = 1,     /* CUBLAS_OP_T */
  SET_TRANSPOSED = 3, /* CUBLASLT_MATMUL_DESC_TRANSA */
  SET_WORKSPACE = 1,  /* CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES */
};

/* cublasLtMatmulHeuristicResult_t */
typedef struct heuristic {
  uint64_t algorithm[8];
  size_t workspace;
  int state;
  float waves;
  int reserved[4];
} heuristic;

struct cublas {
  const gpu *gpu;
  void *library, *handle, *operation, *preference, *workspace;
  char name[128];
  size_t (*version)(void);
  const char *(*status_name)(int status);
  int (*create)(void **handle);
  int (*destroy)(void *handle);
  int (*operation_create)(void **out, int compute, int scale);
  int (*operation_destroy)(void *operation);
  int (*operation_set)(void *operation, int what, const void *value, size_t bytes);
  int (*layout_create)(void **out, int type, uint64_t rows, uint64_t columns, int64_t lead);
  int (*layout_destroy)(void *layout);
  int (*preference_create)(void **out);
  int (*preference_destroy)(void *preference);
  int (*preference_set)(void *preference, int what, const void *value, size_t bytes);
  int (*choose)(void *handle, void *operation, void *a, void *b, void *c, void *d, void *preference,
                int wanted, heuristic *out, int *count);
  int (*multiply)(void *handle, void *operation, const void *alpha, const void *a, void *of_a,
                  const void *b, void *of_b, const void *beta, const void *c, void *of_c, void *d,
                  void *of_d, const void *algorithm, void *workspace, size_t workspace_bytes,
                  void *stream);
};

static bool find_all(cublas *on, const char *path, failure *why) {
  const struct {
    const char *name;
    void **to;
  } functions[] = {{"cublasLtGetVersion", (void **)&on->version},
                   {"cublasLtGetStatusName", (void **)&on->status_name},
                   {"cublasLtCreate", (void **)&on->create},
                   {"cublasLtDestroy", (void **)&on->destroy},
                   {"cublasLtMatmulDescCreate", (void **)&on->operation_create},
                   {"cublasLtMatmulDescDestroy", (void **)&on->operation_destroy},
                   {"cublasLtMatmulDescSetAttribute", (void **)&on->operation_set},
                   {"cublasLtMatrixLayoutCreate", (void **)&on->layout_create},
                   {"cublasLtMatrixLayoutDestroy", (void **)&on->layout_destroy},
                   {"cublasLtMatmulPreferenceCreate", (void **)&on->preference_create},
                   {"cublasLtMatmulPreferenceDestroy", (void **)&on->preference_destroy},
                   {"cublasLtMatmulPreferenceSetAttribute", (void **)&on->preference_set},
                   {"cublasLtMatmulAlgoGetHeuristic", (void **)&on->choose},
                   {"cublasLtMatmul", (void **)&on->multiply}};
  for (unsigned i = 0; i < sizeof functions / sizeof *functions; i++) {
    *functions[i].to = dlsym(on->library, functions[i].name);
    if (*functions[i].to == NULL) return fail(why, "%s has no %s", path, functions[i].name);
  }
  return true;
}

/* The path that was opened, or that should have been. It stays loaded: it has exit handlers of its
 * own. */
static const char *open_library(cublas *on) {
  const int how = RTLD_LAZY | RTLD_LOCAL | RTLD_NODELETE;
  static const char *const names[] = {"libcublasLt.so.13", "libcublasLt.so.12"};
  const char *path = getenv("KVSIFT_CUBLASLT");
  if (path != NULL) {
    on->library = dlopen(path, how);
    return path;
  }
  for (unsigned i = 0; i < sizeof names / sizeof *names; i++) {
    on->library = dlopen(names[i], how);
    if (on->library != NULL) return names[i];
  }
  return names[0];
}

static bool works(const cublas *on, int result, const char *call, failure *why) {
  if (result == 0) return true;
  const char *name = on->status_name(result);
  return fail(why, "%s answered %s (%d)", call, name == NULL ? "unknown status" : name, result);
}

static void say_name(cublas *on, const char *path) {
  size_t v = on->version();
  if (dlsym(on->library, "kvsift_mock_cublas_alive") != NULL) {
    snprintf(on->name, sizeof on->name, "the tests' stand-in for cuBLASLt");
  } else {
    snprintf(on->name, sizeof on->name, "cuBLASLt %zu.%zu.%zu (%s)", v / 10000, v / 100 % 100,
             v % 100, path);
  }
}

static bool start(cublas *on, failure *why) {
  const int32_t transposed = TRANSPOSED;
  const uint64_t bytes = WORKSPACE_BYTES;
  on->workspace = gpu_take(on->gpu, bytes);
  if (on->workspace == NULL) return fail(why, "no device memory for cuBLASLt's workspace");
  return works(on, on->create(&on->handle), "cublasLtCreate", why) &&
         works(on, on->operation_create(&on->operation, COMPUTE_FLOAT, TYPE_FLOAT),
               "cublasLtMatmulDescCreate", why) &&
         works(on, on->operation_set(on->operation, SET_TRANSPOSED, &transposed, sizeof transposed),
               "cublasLtMatmulDescSetAttribute", why) &&
         works(on, on->preference_create(&on->preference), "cublasLtMatmulPreferenceCreate", why) &&
         works(on, on->preference_set(on->preference, SET_WORKSPACE, &bytes, sizeof bytes),
               "cublasLtMatmulPreferenceSetAttribute", why);
}

bool cublas_open(cublas **out, const gpu *on, failure *why) {
  cublas *made = memory_take(1, sizeof *made);
  *out = NULL;
  if (made == NULL) return fail(why, "no memory for cuBLASLt");
  made->gpu = on;
  const char *path = open_library(made);
  bool missing = made->library == NULL;
  if (missing) fail(why, "no cuBLASLt: %s could not be opened", path);
  if (!missing && find_all(made, path, why)) {
    say_name(made, path);
    if (start(made, why)) {
      *out = made;
      return true;
    }
  }
  cublas_close(made);
  return missing;
}

void cublas_close(cublas *with) {
  if (with == NULL) return;
  if (with->preference != NULL) with->preference_destroy(with->preference);
  if (with->operation != NULL) with->operation_destroy(with->operation);
  if (with->handle != NULL) with->destroy(with->handle);
  gpu_give(with->gpu, with->workspace);
  if (with->library != NULL) dlclose(with->library);
  memory_give(with);
}

const char *cublas_name(const cublas *with) { return with->name; }

/* `count` lines of `length` elements: what are rows here are cuBLASLt's columns. */
static bool describe(const cublas *with, void **out, uint32_t count, uint32_t length,
                     failure *why) {
  return works(with, with->layout_create(out, TYPE_FLOAT, length, count, length),
               "cublasLtMatrixLayoutCreate", why);
}

bool cublas_make_plan(const cublas *with, cublas_plan *out, uint32_t rows, uint32_t columns,
                      uint32_t inputs, failure *why) {
  heuristic found = {.state = 0};
  int count = 0;
  if (!describe(with, &out->weights, rows, columns, why) ||
      !describe(with, &out->input, inputs, columns, why) ||
      !describe(with, &out->output, inputs, rows, why)) {
    return false;
  }
  int result = with->choose(with->handle, with->operation, out->weights, out->input, out->output,
                            out->output, with->preference, 1, &found, &count);
  if (!works(with, result, "cublasLtMatmulAlgoGetHeuristic", why)) return false;
  if (count < 1 || found.state != 0) {
    return fail(why, "cuBLASLt knows no way to multiply %u x %u weights with %u inputs", rows,
                columns, inputs);
  }
  for (unsigned i = 0; i < 8; i++) out->algorithm[i] = found.algorithm[i];
  return true;
}

void cublas_release_plan(const cublas *with, cublas_plan *plan) {
  void *layouts[] = {plan->weights, plan->input, plan->output};
  for (unsigned i = 0; i < sizeof layouts / sizeof *layouts; i++) {
    if (layouts[i] != NULL) with->layout_destroy(layouts[i]);
  }
  *plan = (cublas_plan){.weights = NULL};
}

bool cublas_multiply(const cublas *with, const cublas_plan *plan, const float *weights,
                     const float *input, float *output, failure *why) {
  const float one = 1, zero = 0;
  int result =
      with->multiply(with->handle, with->operation, &one, weights, plan->weights, input,
                     plan->input, &zero, output, plan->output, output, plan->output,
                     plan->algorithm, with->workspace, WORKSPACE_BYTES, gpu_stream(with->gpu));
  return works(with, result, "cublasLtMatmul", why);
}

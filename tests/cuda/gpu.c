#include "gpu.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>

#define TEXT(name) #name
#define SYMBOL(name) TEXT(name)
#define CALL(function, ...) must(((__typeof__(&function))symbol(SYMBOL(function)))(__VA_ARGS__), #function)

static struct {
  void *library;
  CUstream stream;
  CUevent clock_begin, clock_end;
  char name[100];
  bool mock, in_turn;
} gpu;

static void *symbol(const char *name) {
  void *found = dlsym(gpu.library, name);
  if (found == NULL) {
    fprintf(stderr, "the driver has no %s\n", name);
    abort();
  }
  return found;
}

static void must(CUresult result, const char *function) {
  if (result == CUDA_SUCCESS) return;
  fprintf(stderr, "%s answered %d\n", function, (int)result);
  abort();
}

bool gpu_open(void) {
  const char *path = getenv("KVSIFT_CUDA_DRIVER");
  if (path == NULL) path = "libcuda.so.1";
  gpu.library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (gpu.library == NULL) {
    printf("skipped: no CUDA driver (%s)\n", dlerror());
    return false;
  }
  int count = 0;
  CUdevice device = 0;
  CUcontext context = NULL;
  const CUresult start = ((__typeof__(&cuInit))symbol("cuInit"))(0);
  if (start == CUDA_SUCCESS) CALL(cuDeviceGetCount, &count);
  if (count == 0) {
    printf("skipped: no CUDA device (cuInit answered %d, %d devices)\n", (int)start, count);
    return false;
  }
  CALL(cuDeviceGet, &device, 0);
  CALL(cuDeviceGetName, gpu.name, (int)sizeof gpu.name, device);
  CALL(cuDevicePrimaryCtxRetain, &context, device);
  CALL(cuCtxSetCurrent, context);
  CALL(cuStreamCreate, &gpu.stream, CU_STREAM_NON_BLOCKING);
  gpu.mock = dlsym(gpu.library, "kvsift_mock_calls") != NULL;
  gpu.in_turn = gpu.mock && !((bool (*)(void))symbol("kvsift_mock_finds_races"))();
  printf("device: %s\n", gpu.name);
  return true;
}

bool gpu_is_mock(void) { return gpu.mock; }
bool gpu_is_in_turn(void) { return gpu.in_turn; }
const char *gpu_name(void) { return gpu.name; }
void *gpu_stream(void) { return gpu.stream; }

void *gpu_new(size_t bytes, const void *from) {
  CUdeviceptr memory = 0;
  CALL(cuMemAlloc, &memory, bytes);
  if (from != NULL) gpu_write((void *)memory, from, bytes);
  return (void *)memory;
}

void gpu_free(void *memory) {
  gpu_wait();
  if (memory != NULL) CALL(cuMemFree, (CUdeviceptr)memory);
}

void *gpu_new_pinned(size_t bytes) {
  void *memory = NULL;
  CALL(cuMemHostAlloc, &memory, bytes, 0);
  return memory;
}

void gpu_free_pinned(void *memory) {
  if (memory != NULL) CALL(cuMemFreeHost, memory);
}

void gpu_write(void *to, const void *from, size_t bytes) {
  if (bytes == 0) return;
  CALL(cuMemcpyHtoDAsync, (CUdeviceptr)to, from, bytes, gpu.stream);
  gpu_wait();
}

void gpu_read(void *to, const void *from, size_t bytes) {
  if (bytes > 0) CALL(cuMemcpyDtoHAsync, to, (CUdeviceptr)from, bytes, gpu.stream);
  gpu_wait();
}

void *gpu_new_stream(void) {
  CUstream stream = NULL;
  CALL(cuStreamCreate, &stream, CU_STREAM_NON_BLOCKING);
  return stream;
}

void gpu_follow(void *stream, void *before) {
  CUevent event = NULL;
  CALL(cuEventCreate, &event, CU_EVENT_DISABLE_TIMING);
  CALL(cuEventRecord, event, (CUstream)before);
  CALL(cuStreamWaitEvent, (CUstream)stream, event, 0);
  CALL(cuEventDestroy, event);
}

void gpu_free_stream(void *stream) { CALL(cuStreamDestroy, (CUstream)stream); }

void gpu_begin_clock(void) {
  if (gpu.clock_begin == NULL) CALL(cuEventCreate, &gpu.clock_begin, CU_EVENT_DEFAULT);
  if (gpu.clock_end == NULL) CALL(cuEventCreate, &gpu.clock_end, CU_EVENT_DEFAULT);
  CALL(cuEventRecord, gpu.clock_begin, gpu.stream);
}

double gpu_end_clock(void) {
  float milliseconds = 0;
  CALL(cuEventRecord, gpu.clock_end, gpu.stream);
  CALL(cuEventSynchronize, gpu.clock_end);
  CALL(cuEventElapsedTime, &milliseconds, gpu.clock_begin, gpu.clock_end);
  return (double)milliseconds;
}

void gpu_copy(void *to, const void *from, size_t bytes) {
  CALL(cuMemcpyDtoDAsync, (CUdeviceptr)to, (CUdeviceptr)from, bytes, gpu.stream);
}

void gpu_wait(void) { CALL(cuStreamSynchronize, gpu.stream); }

void gpu_begin_capture(void) { CALL(cuStreamBeginCapture, gpu.stream, CU_STREAM_CAPTURE_MODE_GLOBAL); }

CUgraphExec gpu_end_capture(void) {
  CUgraph graph = NULL;
  CUgraphExec exec = NULL;
  CALL(cuStreamEndCapture, gpu.stream, &graph);
  CALL(cuGraphInstantiateWithFlags, &exec, graph, 0);
  CALL(cuGraphDestroy, graph);
  return exec;
}

void gpu_replay(CUgraphExec graph) { CALL(cuGraphLaunch, graph, gpu.stream); }
void gpu_free_graph(CUgraphExec graph) { CALL(cuGraphExecDestroy, graph); }

void gpu_fail(const char *function, uint32_t nth, int32_t result) {
  if (!gpu.mock) return;
  ((void (*)(const char *, uint32_t, int32_t))symbol("kvsift_mock_fail"))(function, nth, result);
}

uint64_t gpu_calls(const char *function) {
  return gpu.mock ? ((uint64_t(*)(const char *))symbol("kvsift_mock_calls"))(function) : 0;
}

#include "gpu.h"

#include <dlfcn.h>
#include <stdlib.h>

#include "memory.h"

typedef uint64_t address;

/* The driver's functions by the names that its library gives them. */
struct gpu {
  void *library, *context, *stream;
  int (*init)(unsigned flags);
  int (*device)(int *out, int ordinal);
  int (*retain)(void **context, int device);
  int (*release)(int device);
  int (*set_context)(void *context);
  int (*make_stream)(void **out, unsigned flags);
  int (*free_stream)(void *stream);
  int (*synchronize)(void *stream);
  int (*take)(address *out, size_t bytes);
  int (*give)(address memory);
  int (*take_pinned)(void **out, size_t bytes, unsigned flags);
  int (*give_pinned)(void *memory);
  int (*send)(address to, const void *from, size_t bytes, void *stream);
  int (*receive)(void *to, address from, size_t bytes, void *stream);
};

static bool find_all(gpu *on, failure *why) {
  const struct {
    const char *name;
    void **to;
  } functions[] = {{"cuInit", (void **)&on->init},
                   {"cuDeviceGet", (void **)&on->device},
                   {"cuDevicePrimaryCtxRetain", (void **)&on->retain},
                   {"cuDevicePrimaryCtxRelease_v2", (void **)&on->release},
                   {"cuCtxSetCurrent", (void **)&on->set_context},
                   {"cuStreamCreate", (void **)&on->make_stream},
                   {"cuStreamDestroy_v2", (void **)&on->free_stream},
                   {"cuStreamSynchronize", (void **)&on->synchronize},
                   {"cuMemAlloc_v2", (void **)&on->take},
                   {"cuMemFree_v2", (void **)&on->give},
                   {"cuMemHostAlloc", (void **)&on->take_pinned},
                   {"cuMemFreeHost", (void **)&on->give_pinned},
                   {"cuMemcpyHtoDAsync_v2", (void **)&on->send},
                   {"cuMemcpyDtoHAsync_v2", (void **)&on->receive}};
  for (unsigned i = 0; i < sizeof functions / sizeof *functions; i++) {
    *functions[i].to = dlsym(on->library, functions[i].name);
    if (*functions[i].to == NULL)
      return fail(why, "no CUDA device: the driver has no %s", functions[i].name);
  }
  return true;
}

static bool start(gpu *on, failure *why) {
  int device = 0, result = on->init(0);
  if (result != 0) return fail(why, "no CUDA device: cuInit answered %d", result);
  if (on->device(&device, 0) != 0) return fail(why, "no CUDA device: the driver knows none");
  result = on->retain(&on->context, device);
  if (result != 0) return fail(why, "the CUDA device gives no context (%d)", result);
  result = on->set_context(on->context);
  if (result == 0) result = on->make_stream(&on->stream, 1); /* apart from the default stream */
  return result == 0 || fail(why, "the CUDA device gives no stream (%d)", result);
}

gpu *gpu_open(failure *why) {
  const char *path = getenv("KVSIFT_CUDA_DRIVER");
  gpu *on = memory_take(1, sizeof *on);
  if (path == NULL) path = "libcuda.so.1";
  if (on == NULL) return fail(why, "no memory for a CUDA device"), NULL;
  on->library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (on->library == NULL) {
    fail(why, "no CUDA device: %s could not be opened", path);
  } else if (find_all(on, why) && start(on, why)) {
    return on;
  }
  gpu_close(on);
  return NULL;
}

void gpu_close(gpu *on) {
  if (on == NULL) return;
  if (on->stream != NULL) on->free_stream(on->stream);
  if (on->context != NULL) on->release(0);
  if (on->library != NULL) dlclose(on->library);
  memory_give(on);
}

void *gpu_stream(const gpu *on) { return on->stream; }

void gpu_wait(const gpu *on) { on->synchronize(on->stream); }

void *gpu_take(const gpu *on, uint64_t bytes) {
  address memory = 0;
  return on->take(&memory, bytes) == 0 ? (void *)memory : NULL;
}

void gpu_give(const gpu *on, void *memory) {
  if (memory != NULL) on->give((address)memory);
}

void *gpu_take_pinned(const gpu *on, uint64_t bytes) {
  void *memory = NULL;
  return on->take_pinned(&memory, bytes, 0) == 0 ? memory : NULL;
}

void gpu_give_pinned(const gpu *on, void *memory) {
  if (memory != NULL) on->give_pinned(memory);
}

bool gpu_send(const gpu *on, void *to, const void *from, uint64_t bytes, failure *why) {
  int result = on->send((address)to, from, bytes, on->stream);
  return result == 0 || fail(why, "a copy to the CUDA device failed (%d)", result);
}

bool gpu_receive(const gpu *on, void *to, const void *from, uint64_t bytes, failure *why) {
  int result = on->receive(to, (address)from, bytes, on->stream);
  if (result == 0) result = on->synchronize(on->stream);
  return result == 0 || fail(why, "a copy from the CUDA device failed (%d)", result);
}

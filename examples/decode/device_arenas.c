#include "device_arenas.h"

#include <inttypes.h>

#include "memory.h"

bool device_arenas_take(kvsift_cuda_arenas *out, const gpu *on, const kvsift_cuda_sizes *sizes,
                        failure *why) {
  *out = (kvsift_cuda_arenas){.struct_size = sizeof *out,
                              .device = gpu_take(on, sizes->device),
                              .device_bytes = sizes->device,
                              .pinned = gpu_take_pinned(on, sizes->pinned),
                              .pinned_bytes = sizes->pinned,
                              .host = memory_take(sizes->host, 1),
                              .host_bytes = sizes->host};
  if (out->device == NULL)
    return fail(why, "no device memory for an arena of %" PRIu64 " bytes", sizes->device);
  if (out->pinned == NULL)
    return fail(why, "no pinned memory for an arena of %" PRIu64 " bytes", sizes->pinned);
  return out->host != NULL || fail(why, "no memory for an arena of %" PRIu64 " bytes", sizes->host);
}

void device_arenas_give(const gpu *on, const kvsift_cuda_arenas *arenas) {
  gpu_give(on, arenas->device);
  gpu_give_pinned(on, arenas->pinned);
  memory_give(arenas->host);
}

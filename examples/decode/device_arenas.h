/* The three arenas that a policy or a store on a CUDA device asks for. */
#ifndef DECODE_DEVICE_ARENAS_H
#define DECODE_DEVICE_ARENAS_H

#include <kvsift/kvsift_cuda.h>

#include "gpu.h"

/* Whatever it answers, giving back is owed. */
bool device_arenas_take(kvsift_cuda_arenas *out, const gpu *on, const kvsift_cuda_sizes *sizes,
                        failure *why);
void device_arenas_give(const gpu *on, const kvsift_cuda_arenas *arenas); /* also zeroed ones */

#endif

// Marks what host and device code share.
#pragma once

#ifdef __CUDACC__
#define KVSIFT_BOTH __host__ __device__
#else
#define KVSIFT_BOTH
#endif

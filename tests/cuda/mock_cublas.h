// What the stand-in for cuBLASLt tells besides the library's own calls; a test finds it by dlsym. Its calls are counted, and
// fail when told to, like the driver's (mock_driver.h).
#pragma once

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

// Handles, layouts, operations and preferences that were made and not destroyed.
int32_t kvsift_mock_cublas_alive(void);

#ifdef __cplusplus
}
#endif

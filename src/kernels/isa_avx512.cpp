#include "kernels/vec_avx512.h"

#include "kernels/table.h"

namespace kvsift {

extern const Kernels kernels_avx512;
const Kernels kernels_avx512 = table<Avx512>;

}  // namespace kvsift

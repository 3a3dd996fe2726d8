#include "kernels/vec_avx2.h"

#include "kernels/table.h"

namespace kvsift {

extern const Kernels kernels_avx2;
const Kernels kernels_avx2 = table<Avx2>;

}  // namespace kvsift

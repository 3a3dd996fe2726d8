#include "kernels/vec_neon.h"

#include "kernels/table.h"

namespace kvsift {

extern const Kernels kernels_neon;
const Kernels kernels_neon = table<Neon>;

}  // namespace kvsift

#include "kernels/vec_scalar.h"

#include "kernels/table.h"

namespace kvsift {

extern const Kernels kernels_scalar;
const Kernels kernels_scalar = table<Scalar>;

}  // namespace kvsift

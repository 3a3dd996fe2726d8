#include "kernels/vec_avx512.h"

#include "predictor/conv_impl.h"

namespace kvsift {

std::uint64_t conv_strip_vnni(const ConvStrip &strip) { return conv_strip<Avx512>(strip); }

}  // namespace kvsift

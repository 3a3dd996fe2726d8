#include "kernels/vec_avx512.h"

#include "kernels/statistics_impl.h"

namespace kvsift {

void coded_statistics_vnni(const float *queries, std::uint32_t group, const Rows &mean, const Rows &deviation,
                           std::uint32_t count, std::uint32_t following, std::uint32_t dim, bool squared, float *dot,
                           float *spread, std::size_t stride) {
  page_statistics<Avx512, Kept::kCodes>(queries, group, mean, deviation, count, following, dim, squared, dot, spread, stride);
}

}  // namespace kvsift

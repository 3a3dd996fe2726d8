// Small kernels that try the building blocks of the others; the tests run them.
#pragma once

#include <cstdint>

namespace kvsift {

// out[row] = query . row, rows of `dim` float16 (a multiple of 8), one pair of threads a row.
struct ProbeDotArgs {
  const float *query;
  const void *rows;
  std::uint32_t count, dim;
  float *out;
};

// Element-wise: exps[i] = exp(x[i]), logs[i] = log(x[i]).
struct ProbeExpArgs {
  const float *x;
  std::uint32_t count;
  float *exps, *logs;
};

}  // namespace kvsift

// The network's last step: the mean of each column over the window.
#pragma once

#include "predictor/network.h"

namespace kvsift {

// Means of the crop's columns, [left, right), over `rows` rows of the window from `begin`: s is read where there is
// something in it.
void mean_columns(const PredictorHistory &h, std::uint64_t begin, std::uint32_t rows, std::uint32_t right, float *scores);

}  // namespace kvsift

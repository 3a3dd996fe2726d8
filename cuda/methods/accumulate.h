// States that are one number for each block: sums and moving averages of pooled rows.
#pragma once

#include "cuda/core/launcher.h"
#include "cuda/methods/pooled.h"

namespace kvsift {

// state = keep * state + add * row, row after row.
struct AccumulateArgs {
  Call call;
  DeviceRows rows;
  std::uint32_t field;    // float [lists][max_blocks]
  std::uint32_t of_mass;  // the rows' masses, not their peaks
  std::uint32_t votes;    // of prompt rows alone; a chunk's first ones find the state zero
  float keep, add;
};

// What the methods of these names do with rows; `heads` is of the call.
kvsift_status observe_h2o(const Launcher &to, const Call &call, std::uint32_t heads, const DeviceRows &rows);
kvsift_status observe_ema(const Launcher &to, const Call &call, std::uint32_t heads, const DeviceRows &rows);
// SnapKV and PyramidKV: votes of the prompt's last queries.
kvsift_status observe_votes(const Launcher &to, const Call &call, std::uint32_t heads, const DeviceRows &rows);

}  // namespace kvsift

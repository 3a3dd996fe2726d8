// What a method is to the device, beside its table on the CPU (methods/method.h).
#pragma once

#include "cuda/core/launcher.h"
#include "cuda/methods/pooled.h"

namespace kvsift {

struct CudaMethod {
  // Room of the device alone, from room.method on.
  std::uint64_t (*room_bytes)(const Settings &settings);
  // What has to lie there before anything else, put there once; may be null.
  kvsift_status (*create)(const Launcher &to, const Image &image);
  // State after create, where all zeros will not do; may be null.
  kvsift_status (*reset)(const Launcher &to, const Call &call, std::uint32_t heads);
  // The lists of methods that decide once what they keep, instead of all that follows; null: the others.
  kvsift_status (*select)(const Launcher &to, const Call &call, std::uint32_t heads);
  // Scores in the heads' scratch, for those that are not read in the method's state; null: none.
  kvsift_status (*score)(const Launcher &to, const Call &call, std::uint32_t heads, const kvsift_query &query);
  // On the device, [KV heads of the call]: how many leading blocks have a score; null: all.
  const std::uint32_t *(*leading)(const Call &call);
  // A step's rows, or a prompt's; null: it does not learn.
  kvsift_status (*observe)(const Launcher &to, const Call &call, std::uint32_t heads, const DeviceRows &rows);
  kvsift_status (*predict)(const Launcher &to, const Call &call, std::uint32_t heads);
  // Besides what the undo ring brings back; null: that is all.
  kvsift_status (*truncate)(const Launcher &to, const Call &call, std::uint32_t heads, std::uint32_t tokens);
  bool ranks;                // it has scores at all
  std::uint32_t state_rows;  // 1 + the field of the state that is the scores, [lists][max_blocks]; 0: they are in scratch
  bool leaves_tail;          // with the moments tail, scoring leaves its logits in scratch
  std::uint32_t (*bytes_of_block)(const Settings &settings);  // of state that scoring a block reads, as counted on the CPU
};

// Null: the method does not run on the device.
const CudaMethod *cuda_method_of(kvsift_method method);

}  // namespace kvsift

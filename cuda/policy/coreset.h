// The coresets of a device policy: launches.
#pragma once

#include "cuda/core/launcher.h"
#include "cuda/policy/pages.h"

namespace kvsift {

constexpr std::uint32_t kListThreads = 512;

struct ListCoresetArgs {
  Call call;
};

// Forms that the device does not have get UNSUPPORTED with a sentence.
kvsift_status check_coreset_form(const Settings &settings, kvsift_error *error);

// Side of the kernel matrix of a halving; 0: the configuration needs none.
std::uint32_t coreset_matrix_side(const Settings &settings);

// Tokens that append_keys has counted come into the heads' coresets. A block for each head takes them in order and halves on
// the way what is full; on most decode steps it copies a row.
kvsift_status push_to_coresets(const Launcher &to, const KeysArgs &args, std::uint32_t heads);

// The tail of the heads' lists, once these are written.
kvsift_status list_coresets(const Launcher &to, const Call &call, std::uint32_t heads);

// All units back to `tokens` tokens.
kvsift_status truncate_coresets(const Launcher &to, const Call &call, std::uint32_t tokens);

// Whether a coreset that has taken `seen` tokens could have the backups to go back to `tokens`.
bool coreset_reaches(const CoresetShape &shape, std::uint32_t seen, std::uint32_t tokens);

}  // namespace kvsift

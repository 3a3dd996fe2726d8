// The coresets of a device policy: launches.
#pragma once

#include "cuda/core/launcher.h"
#include "cuda/policy/pages.h"

namespace kvsift {

constexpr std::uint32_t kListThreads = 512;

struct ListCoresetArgs {
  Call call;
};

// Tokens that come, and whether halvings are done ahead; or the level of which they are.
struct CoresetArgs {
  KeysArgs keys;
  std::uint32_t ahead, level;
};

// The halvings of an open coreset that tokens [first, last) of a call decide alone.
struct AheadSpan {
  std::uint32_t first, last;

  constexpr std::uint32_t begin(const CoresetShape &shape, std::uint32_t level) const {
    const std::uint64_t size = std::uint64_t{shape.group} << level, old = first > shape.sinks ? first - shape.sinks : 0;
    return static_cast<std::uint32_t>((old + size - 1) / size);
  }
  constexpr std::uint32_t end(const CoresetShape &shape, std::uint32_t level) const {
    const std::uint32_t exact = shape.sinks + shape.lag;
    return last > exact ? (last - exact) / shape.group >> level : 0;
  }
};

// Places for what is kept by the halvings of levels [0, level) that a call can decide.
constexpr std::uint64_t ahead_places(const CoresetShape &shape, std::uint32_t max_tokens, std::uint32_t level) {
  std::uint64_t places = 0;
  for (std::uint32_t l = 0; l < level; ++l) places += std::uint64_t{max_tokens / shape.group >> l} * (shape.group / 2);
  return places;
}

// Halvings of a head that are done at a time ahead of their turn, each with a matrix; at least 1.
std::uint32_t coreset_matrices(const Settings &settings);

// Forms that the device does not have get UNSUPPORTED with a sentence.
kvsift_status check_coreset_form(const Settings &settings, kvsift_error *error);

// Side of the kernel matrix of a halving; 0: the configuration needs none.
std::uint32_t coreset_matrix_side(const Settings &settings);

// Tokens that append_keys has counted come into the heads' coresets. A block for each head takes them in order and halves on
// the way what is full; on most decode steps it copies a row. Halvings of a long stretch are done ahead, side by side.
kvsift_status push_to_coresets(const Launcher &to, const KeysArgs &args, std::uint32_t heads);

// The tail of the heads' lists, once these are written.
kvsift_status list_coresets(const Launcher &to, const Call &call, std::uint32_t heads);

// All units back to `tokens` tokens.
kvsift_status truncate_coresets(const Launcher &to, const Call &call, std::uint32_t tokens);

// Whether a coreset that has taken `seen` tokens could have the backups to go back to `tokens`.
bool coreset_reaches(const CoresetShape &shape, std::uint32_t seen, std::uint32_t tokens);

}  // namespace kvsift

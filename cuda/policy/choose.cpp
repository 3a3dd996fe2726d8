#include "cuda/policy/choose.h"

#include "cuda/policy/reduce.h"

namespace kvsift {
namespace {

constexpr std::uint32_t kMostFloats = 48 * 1024;    // of shared memory
constexpr std::uint32_t kStaticShared = 20 * 1024;  // of the kernels, at most

// Rows lie 16 floats apart modulo 32: the lanes of two rows are in different banks.
std::uint32_t row_floats(const Settings &s) { return (s.max_blocks + 31) / 32 * 32 + 16; }

// All query heads' rows where they fit, else one, else none.
std::uint32_t shared_floats(const CudaDevice &device, const Settings &s) {
  const std::uint32_t room = device.shared_bytes > kStaticShared ? (device.shared_bytes - kStaticShared) / 4 : 0;
  const std::uint32_t most = room < kMostFloats ? room : kMostFloats, row = row_floats(s);
  if (s.group * row <= most) return s.group * row;
  return row <= most ? row : 0;
}

}  // namespace

kvsift_status allow_choose_shared(const CudaDevice &device, const Settings &s, kvsift_error *error) {
  const std::uint32_t bytes = shared_floats(device, s) * 4;
  if (kvsift_status status = allow_shared(device, kKernel_choose, bytes, error)) return status;
  return allow_shared(device, kKernel_choose_carefully, bytes, error);
}

kvsift_status launch_choose(const Launcher &to, const ChooseArgs &asked, std::uint32_t heads) {
  const Settings &s = asked.call.image.s;
  ChooseArgs args = asked;
  args.shared_floats = args.scored != 0 ? shared_floats(to.device, s) : 0;
  args.shared_stride = row_floats(s);
  // Rows that fit in shared memory the kernel reduces itself.
  const bool many = args.scored != 0 && args.by_query != 0 && s.c.grouping != KVSIFT_GROUP_QUERY_HEAD;
  if (many && s.group * args.shared_stride > args.shared_floats) {
    if (kvsift_status status = launch_reduce(to, args, heads)) return status;
  }
  // One multiprocessor works on a list: what all threads do alike is done by each warp of them.
  const std::uint32_t wanted = (s.max_blocks / 4 + 32) / 32 * 32;  // four scores each
  const std::uint32_t threads = wanted < 256 ? 256 : wanted < kChooseThreads ? wanted : kChooseThreads;
  const LaunchShape shape{s.lists, heads, 1, threads, args.shared_floats * 4};
  const bool careful = args.verifies != 0 || s.c.target_mass > 0;
  return launch(to.device, careful ? kKernel_choose_carefully : kKernel_choose, shape, to.stream, args, to.error);
}

}  // namespace kvsift

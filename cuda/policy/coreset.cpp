#include "cuda/policy/coreset.h"

#include "cuda/balance/compress.h"
#include "cuda/policy/steps.h"
#include "kvsift/kvsift_cuda.h"
#include "policy/coreset.h"

namespace kvsift {

kvsift_status check_coreset_form(const Settings &s, kvsift_error *error) {
  if (!has_coreset(s)) return KVSIFT_OK;
  const std::uint32_t form = s.c.balance_form;
  if (form != KVSIFT_BALANCE_PRACTICAL && form != KVSIFT_BALANCE_UNIFORM) {
    return fail(error, KVSIFT_UNSUPPORTED, "config.balance_form is ", form,
                ": the device has the practical form and uniform sampling");
  }
  if (s.c.balance_guard == 0) return KVSIFT_OK;
  return fail(error, KVSIFT_UNSUPPORTED, "config.balance_guard is ", s.c.balance_guard, ": not on the device");
}

std::uint32_t coreset_matrix_side(const Settings &s) {
  if (!has_coreset(s) || s.c.balance_form == KVSIFT_BALANCE_UNIFORM) return 0;
  return (s.coreset.group + kGramTile - 1) / kGramTile * kGramTile;
}

std::uint32_t coreset_matrices(const Settings &s) {
  constexpr std::uint64_t kMostBytes = 16ull << 20;
  const std::uint64_t side = coreset_matrix_side(s);
  if (side == 0) return 1;
  const std::uint64_t most = kMostBytes / (side * side * sizeof(float) * s.c.kv_heads), groups = s.c.max_tokens / s.coreset.group;
  const std::uint64_t matrices = most < groups ? most : groups;
  return matrices > 1 ? static_cast<std::uint32_t>(matrices) : 1;
}

// Halvings of a level that one call decides alone.
static std::uint32_t ahead_of_level(const KeysArgs &args, std::uint32_t level) {
  const CoresetShape &shape = args.call.image.s.coreset;
  const AheadSpan span{args.first_token, args.first_token + args.tokens};
  const std::uint32_t begin = span.begin(shape, level), end = span.end(shape, level);
  return end > begin ? end - begin : 0;
}

static kvsift_status halve_ahead(const Launcher &to, const KeysArgs &args, std::uint32_t heads) {
  const Settings &s = args.call.image.s;
  const std::uint32_t matrices = coreset_matrices(s);
  for (std::uint32_t level = 0; level < s.coreset.levels; ++level) {
    const std::uint32_t halvings = ahead_of_level(args, level);
    if (halvings == 0) return KVSIFT_OK;
    const LaunchShape shape{halvings < matrices ? halvings : matrices, heads, 1, kGramThreads, 0};
    const CoresetArgs level_args{args, 1, level};
    if (kvsift_status status = launch(to.device, kKernel_coreset_ahead, shape, to.stream, level_args, to.error)) return status;
  }
  return KVSIFT_OK;
}

kvsift_status push_to_coresets(const Launcher &to, const KeysArgs &args, std::uint32_t heads) {
  // Coins are tossed as fast on the way, and a single halving is not worth a launch.
  const bool known = args.first_token != KVSIFT_CUDA_NEXT, matrices = coreset_matrix_side(args.call.image.s) > 0;
  const bool ahead = known && matrices && ahead_of_level(args, 0) > 1;
  if (ahead) {
    if (kvsift_status status = halve_ahead(to, args, heads)) return status;
  }
  const LaunchShape shape{1, heads, 1, kGramThreads, 0};
  return launch(to.device, kKernel_coreset_push, shape, to.stream, CoresetArgs{args, ahead, 0}, to.error);
}

kvsift_status list_coresets(const Launcher &to, const Call &call, std::uint32_t heads) {
  const LaunchShape shape{1, heads, 1, kListThreads, 0};
  return launch(to.device, kKernel_coreset_lists, shape, to.stream, ListCoresetArgs{call}, to.error);
}

kvsift_status truncate_coresets(const Launcher &to, const Call &call, std::uint32_t tokens) {
  const Settings &s = call.image.s;
  const LaunchShape shape{s.sparse_layers, s.c.kv_heads, 1, kGramThreads, 0};
  return launch(to.device, kKernel_coreset_truncate, shape, to.stream, TruncateArgs{call, tokens, 0}, to.error);
}

bool coreset_reaches(const CoresetShape &shape, std::uint32_t seen, std::uint32_t tokens) {
  const std::uint32_t exact = shape.sinks + shape.lag;
  const std::uint32_t then = tokens > exact ? (tokens - exact) / shape.group : 0;
  const std::uint32_t now = seen > exact ? (seen - exact) / shape.group : 0;
  return now <= then || now - then <= shape.backups;
}

}  // namespace kvsift

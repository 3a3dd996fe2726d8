#include "cuda/policy/coreset.h"

#include "cuda/balance/compress.h"
#include "cuda/policy/steps.h"
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

kvsift_status push_to_coresets(const Launcher &to, const KeysArgs &args, std::uint32_t heads) {
  const LaunchShape shape{1, heads, 1, kGramThreads, 0};
  return launch(to.device, kKernel_coreset_push, shape, to.stream, args, to.error);
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

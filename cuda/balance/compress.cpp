#include "cuda/balance/compress.h"

#include "balance/compress.h"

namespace kvsift {
namespace {

constexpr std::uint64_t kMostMatrixBytes = 64ull << 20;

std::uint32_t groups_for(std::uint32_t tokens, std::uint32_t group) { return (tokens + group - 1) / group; }

kvsift_status run(const Launcher &to, KernelId kernel, const LaunchShape &shape, const BalanceArgs &args) {
  return launch(to.device, kernel, shape, to.stream, args, to.error);
}

// Kernel matrices of as many groups as there is room for, and their walks.
kvsift_status sign_groups(const Launcher &to, BalanceArgs args, std::uint32_t pass_groups) {
  const std::uint32_t all = args.heads * args.groups, tiles = args.order / kGramTile;
  const KernelId walk = args.order <= KVSIFT_BALANCE_MAX_GROUP / 2 ? kKernel_balance_walk : kKernel_balance_walk_large;
  for (args.first_group = 0; args.first_group < all; args.first_group += args.pass_groups) {
    args.pass_groups = all - args.first_group < pass_groups ? all - args.first_group : pass_groups;
    const LaunchShape each{args.pass_groups, 1, 1, 256, 0}, warp{args.pass_groups, 1, 1, 32, 0};
    const LaunchShape gram{tiles * (tiles + 1) / 2, args.pass_groups, 1, kGramThreads, 0};
    if (kvsift_status s = run(to, kKernel_balance_centre, each, args)) return s;
    if (kvsift_status s = run(to, kKernel_balance_gram, gram, args)) return s;
    if (kvsift_status s = run(to, walk, warp, args)) return s;
  }
  return KVSIFT_OK;
}

std::uint32_t shift_of(std::uint32_t page_tokens) {
  std::uint32_t shift = 0;
  while (page_tokens >> shift > 1) ++shift;
  return shift;
}

BalanceArgs args_of(const BalanceJob &job, const BalancePlaces &p, char *room) {
  const kvsift_balance_config &c = job.plan.c;
  BalanceArgs a{};
  a.keys = job.cache.keys;
  a.values = job.cache.values;
  a.table = job.cache.block_table;
  a.table_stride = job.cache.block_table_stride;
  a.page_shift = shift_of(job.cache.page_tokens);
  a.first_head = job.first_head;
  a.heads = job.heads;
  a.begin = job.range.begin;
  a.tokens = job.range.end - job.range.begin;
  a.dim = c.head_dim;
  a.group = group_of(job.plan, a.tokens);
  a.order = p.order;
  a.uniform = c.form == KVSIFT_BALANCE_UNIFORM;
  a.key_scale = c.temperature * job.plan.scale;
  a.value_offset = c.value_offset;
  a.gamma = c.gamma;
  a.seed = c.seed;
  a.layer = c.layer;
  a.normalised = c.weights == KVSIFT_BALANCE_NORMALISED;
  a.index = p.index.in(room);
  a.weight = p.weight.in(room);
  a.weight_of = p.weight_of.in(room);
  a.signs = p.signs.in(room);
  a.centre = p.centre.in(room);
  a.matrix = p.matrix.in(room);
  a.index_out = job.index;
  a.weight_out = job.weight;
  a.counts = job.counts;
  a.capacity = job.capacity;
  a.fault = job.fault;
  return a;
}

}  // namespace

BalancePlaces balance_places(const BalancePlan &plan, std::uint32_t heads, std::uint32_t tokens) {
  const std::uint64_t all = std::uint64_t{heads} * tokens;
  const std::uint32_t group = group_of(plan, tokens), longest = group < tokens ? group : tokens;
  Layout layout;
  BalancePlaces p{};
  p.order = (longest + kGramTile - 1) / kGramTile * kGramTile;
  const std::uint64_t matrix = std::uint64_t{p.order} * p.order * sizeof(float);
  std::uint64_t most = kMostMatrixBytes / matrix;
  const std::uint64_t groups = std::uint64_t{heads} * groups_for(tokens, group);
  if (most > groups) most = groups;
  if (most > 65535) most = 65535;
  p.pass_groups = most > 1 ? static_cast<std::uint32_t>(most) : 1;
  const std::uint64_t pass = reads_rows(plan) ? p.pass_groups : 0;
  p.index = layout.take<std::uint32_t>(all, "tokens");
  p.weight = layout.take<float>(all, "weights");
  p.weight_of = layout.take<float>(all, "weights by token");
  p.signs = layout.take<std::int8_t>(all, "signs");
  p.centre = layout.take<float>(pass * plan.c.head_dim, "mean keys");
  p.matrix = layout.take<float>(pass * p.order * p.order, "kernel matrices");
  p.bytes = layout.used();
  return p;
}

kvsift_status check_balance_form(const BalancePlan &plan, kvsift_error *error) {
  if (plan.c.form != KVSIFT_BALANCE_PRACTICAL && plan.c.form != KVSIFT_BALANCE_UNIFORM) {
    return fail(error, KVSIFT_UNSUPPORTED, "form is ", plan.c.form, ": the device has the practical form and uniform sampling");
  }
  if (plan.c.guard != 0) return fail(error, KVSIFT_UNSUPPORTED, "guard is ", plan.c.guard, ": not on the device");
  if (plan.c.uniforms != nullptr) return fail(error, KVSIFT_UNSUPPORTED, "uniforms cannot be given on the device");
  if (plan.c.group_tokens == 0) return fail(error, KVSIFT_UNSUPPORTED, "group_tokens is 0: on the device groups have 32 to 512");
  return KVSIFT_OK;
}

kvsift_status compress_heads(const Launcher &to, const BalanceJob &job, char *room) {
  const std::uint32_t tokens = job.range.end - job.range.begin;
  const BalancePlaces places = balance_places(job.plan, job.heads, tokens);
  BalanceArgs args = args_of(job, places, room);
  const LaunchShape each{job.heads, 1, 1, 1024, 0};
  if (kvsift_status s = run(to, kKernel_balance_start, each, args)) return s;
  args.count = tokens;
  for (args.draw = 0; args.draw < job.plan.c.halvings; ++args.draw, args.count /= 2) {
    args.groups = groups_for(args.count, args.group);
    if (args.uniform != 0) {
      const LaunchShape toss{(args.count + 255) / 256, job.heads, 1, 256, 0};
      if (kvsift_status s = run(to, kKernel_balance_toss, toss, args)) return s;
    } else if (kvsift_status s = sign_groups(to, args, places.pass_groups)) {
      return s;
    }
    if (kvsift_status s = run(to, kKernel_balance_keep, each, args)) return s;
  }
  return run(to, kKernel_balance_finish, each, args);
}

}  // namespace kvsift

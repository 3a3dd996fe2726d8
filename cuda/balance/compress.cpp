#include "cuda/balance/compress.h"

#include "balance/compress.h"
#include "cuda/balance/products.h"

namespace kvsift {
namespace {

constexpr std::uint64_t kMostMatrixBytes = 64ull << 20;
constexpr std::uint32_t kDepthStep = 8;  // coordinates of a packed row: a multiple of this
static_assert(kGramTile * kGramTile * sizeof(float) % kProductAlign == 0, "matrices must start aligned");
static_assert(kGramTile * kDepthStep * sizeof(float) % kProductAlign == 0, "operands must start aligned");

std::uint32_t groups_for(std::uint32_t tokens, std::uint32_t group) { return (tokens + group - 1) / group; }

kvsift_status run(const Launcher &to, KernelId kernel, const LaunchShape &shape, const BalanceArgs &args) {
  return launch(to.device, kernel, shape, to.stream, args, to.error);
}

// The kernel matrices of a pass.
kvsift_status fill_matrices(const Launcher &to, const BalanceArgs &args, const Products *products, char *workspace) {
  const std::uint32_t side = args.order / kGramTile, tiles = side * (side + 1) / 2;
  const LaunchShape each{args.pass_groups, 1, 1, 256, 0}, upper{tiles, args.pass_groups, 1, kGramThreads, 0};
  if (kvsift_status s = run(to, kKernel_balance_centre, each, args)) return s;
  if (products == nullptr) return run(to, kKernel_balance_gram, upper, args);
  const LaunchShape rows{side, args.pass_groups, 1, kGramThreads, 0};
  if (kvsift_status s = run(to, kKernel_balance_pack, rows, args)) return s;
  if (kvsift_status s = multiply(*products, args.packed, args.matrix, workspace, 2 * args.pass_groups, to.stream, to.error)) {
    return s;
  }
  return run(to, kKernel_balance_exponential, upper, args);
}

// Kernel matrices of as many groups as there is room for, and their walks.
kvsift_status sign_groups(const Launcher &to, BalanceArgs args, std::uint32_t pass_groups, const Products *products,
                          char *workspace) {
  const std::uint32_t all = args.heads * args.groups;
  const KernelId walk = args.order <= KVSIFT_BALANCE_MAX_GROUP / 2 ? kKernel_balance_walk : kKernel_balance_walk_large;
  for (args.first_group = 0; args.first_group < all; args.first_group += args.pass_groups) {
    args.pass_groups = all - args.first_group < pass_groups ? all - args.first_group : pass_groups;
    const LaunchShape warp{args.pass_groups, 1, 1, 32, 0};
    if (kvsift_status s = fill_matrices(to, args, products, workspace)) return s;
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
  a.packed = p.packed.in(room);
  a.depth = p.depth;
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
  p.depth = (plan.c.head_dim + kDepthStep - 1) / kDepthStep * kDepthStep;
  const std::uint64_t products = by_cublas(plan) ? 2 : 1;
  const std::uint64_t matrix = products * p.order * p.order * sizeof(float);
  std::uint64_t most = kMostMatrixBytes / matrix;
  const std::uint64_t groups = std::uint64_t{heads} * groups_for(tokens, group);
  if (most > groups) most = groups;
  if (most > 65535) most = 65535;
  p.pass_groups = most > 1 ? static_cast<std::uint32_t>(most) : 1;
  const std::uint64_t pass = reads_rows(plan) ? p.pass_groups : 0;
  // What cuBLASLt is given comes first: each of these starts at a multiple of kProductAlign.
  p.workspace = layout.take<char>(by_cublas(plan) ? kProductWorkspace : 0, "workspace of cuBLASLt");
  p.matrix = layout.take<float>(products * pass * p.order * p.order, "kernel matrices");
  p.packed = layout.take<float>(by_cublas(plan) ? 2 * pass * p.order * p.depth : 0, "packed keys and values");
  p.index = layout.take<std::uint32_t>(all, "tokens");
  p.weight = layout.take<float>(all, "weights");
  p.weight_of = layout.take<float>(all, "weights by token");
  p.signs = layout.take<std::int8_t>(all, "signs");
  p.centre = layout.take<float>(pass * plan.c.head_dim, "mean keys");
  p.bytes = layout.used();
  return p;
}

kvsift_status check_balance_form(const BalancePlan &plan, kvsift_error *error) {
  if (plan.c.form != KVSIFT_BALANCE_PRACTICAL && plan.c.form != KVSIFT_BALANCE_UNIFORM && !by_cublas(plan)) {
    return fail(error, KVSIFT_UNSUPPORTED, "form is ", plan.c.form,
                ": the device has the practical form, exact and by cuBLASLt, and uniform sampling");
  }
  if (plan.c.guard != 0) return fail(error, KVSIFT_UNSUPPORTED, "guard is ", plan.c.guard, ": not on the device");
  if (plan.c.uniforms != nullptr) return fail(error, KVSIFT_UNSUPPORTED, "uniforms cannot be given on the device");
  if (plan.c.group_tokens == 0) return fail(error, KVSIFT_UNSUPPORTED, "group_tokens is 0: on the device groups have 32 to 512");
  return KVSIFT_OK;
}

kvsift_status prepare_products(const Launcher &to, const BalancePlaces &places, char *room, Products *products) {
  const Driver &d = to.device.driver;
  const std::uint32_t most = 2 * places.pass_groups;
  float *packed = places.packed.in(room), *matrix = places.matrix.in(room);
  const std::uint64_t bytes = std::uint64_t{most} * places.order * places.depth * sizeof(float);
  kvsift_status status = make_products(products, places.order, places.depth, most, to.error);
  if (status != KVSIFT_OK) return status;
  const CUresult cleared = d.fill(reinterpret_cast<CUdeviceptr>(packed), 0, bytes, static_cast<CUstream>(to.stream));
  status = check(d, cleared, "cuMemsetD8Async", to.error);
  for (const std::uint32_t batch : {most, 2u}) {
    if (status != KVSIFT_OK) break;
    status = multiply(*products, packed, matrix, places.workspace.in(room), batch, to.stream, to.error);
  }
  if (status == KVSIFT_OK) return KVSIFT_OK;
  d.stream_synchronize(static_cast<CUstream>(to.stream));  // a trial may be on its way
  release_products(products);
  return status;
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
    } else if (kvsift_status s = sign_groups(to, args, places.pass_groups, job.products, places.workspace.in(room))) {
      return s;
    }
    if (kvsift_status s = run(to, kKernel_balance_keep, each, args)) return s;
  }
  return run(to, kKernel_balance_finish, each, args);
}

}  // namespace kvsift

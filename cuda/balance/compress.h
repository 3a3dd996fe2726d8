// BalanceKV's practical form on the device: heads of a cache compressed once, to the bits that kvsift_balance_compress
// gives (balance/compress.h). Uniform sampling, its control, goes the same way without a kernel matrix. The form that is
// named after cuBLASLt leaves the matrices' products to it and has not the same bits.
//
// Groups of all heads are numbered through, head by head. The kernel matrices of as many groups as there is room for are
// computed at a time; then one warp walks through each.
#pragma once

#include "balance/plan.h"
#include "core/arena.h"
#include "cuda/core/launcher.h"
#include "cuda/policy/image.h"

namespace kvsift {

struct Products;  // balance/products.h; kernels do not see it

constexpr std::uint32_t kGramTile = 64;     // tokens; a thread has 4 x 4 entries
constexpr std::uint32_t kGramThreads = 256;
constexpr std::uint32_t kWalkSlots = KVSIFT_BALANCE_MAX_GROUP / 32;  // sums of a lane

struct BalanceArgs {
  kvsift_view keys, values;
  const std::int32_t *table;  // null: contiguous
  std::uint32_t table_stride, page_shift;
  std::uint32_t first_head, heads;
  std::uint32_t begin, tokens;      // of the range
  std::uint32_t dim;
  std::uint32_t count, group, draw; // tokens of each head in this halving; its number
  std::uint32_t groups;             // of a head
  std::uint32_t first_group, pass_groups;  // of the pass
  std::uint32_t order;              // side of a kernel matrix
  std::uint32_t uniform;            // signs are fair coins
  float key_scale, value_offset, gamma;
  std::uint64_t seed;
  std::uint32_t layer;
  std::uint32_t normalised;         // weights are to sum to the tokens
  std::uint32_t *index;             // [heads][tokens]
  float *weight, *weight_of;        // [heads][tokens]
  std::int8_t *signs;               // [heads][tokens]
  float *centre;                    // [pass_groups][dim]
  float *matrix;                    // [pass_groups][order][order]: row j, column i > j; by cuBLASLt: keys' products, values'
  float *packed;                    // by cuBLASLt: [keys, values][pass_groups][order][depth]
  std::uint32_t depth;
  std::uint32_t *index_out;         // [heads][capacity]
  float *weight_out;
  std::uint32_t *counts;            // [heads]
  std::uint32_t capacity;
  Fault *fault;                     // null: not told
};

struct BalanceJob {
  BalancePlan plan;
  kvsift_cache cache;               // on the device
  std::uint32_t first_head, heads;
  kvsift_range range;
  std::uint32_t *index;             // [heads][capacity], on the device like all that follows
  float *weight;
  std::uint32_t *counts;
  std::uint32_t capacity;
  Fault *fault;
  const Products *products = nullptr;  // by cuBLASLt: made for the places' order and depth
};

struct BalancePlaces {
  std::uint32_t pass_groups, order, depth;
  Offset<std::uint32_t> index;
  Offset<float> weight, weight_of;
  Offset<std::int8_t> signs;
  Offset<float> centre, matrix, packed;
  Offset<char> workspace;           // of cuBLASLt
  std::uint64_t bytes;
};
BalancePlaces balance_places(const BalancePlan &plan, std::uint32_t heads, std::uint32_t tokens);

inline bool by_cublas(const BalancePlan &plan) { return plan.c.form == KVSIFT_BALANCE_CUBLAS; }

// Makes products for `places`, whose room is overwritten by a trial: what is loaded at first use is loaded then. On failure
// there are none.
kvsift_status prepare_products(const Launcher &to, const BalancePlaces &places, char *room, Products *products);

// OK, or UNSUPPORTED with a sentence: forms other than practical, by cuBLASLt and uniform, the guard, given uniforms.
kvsift_status check_balance_form(const BalancePlan &plan, kvsift_error *error);

// `room`: as many bytes as balance_places says. The tokens must be finite and at least 2^halvings.
kvsift_status compress_heads(const Launcher &to, const BalanceJob &job, char *room);

}  // namespace kvsift

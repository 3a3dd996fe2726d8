// BalanceKV of heads whose cache lies on the device.
#include "balance_checks.h"
#include "cuda/balance/compress.h"
#include "cuda_check.h"

using namespace kvsift;

static kvsift_status check_plan(const kvsift_balance_config *config, uint32_t heads, uint32_t tokens, BalancePlan *plan) {
  if (config == nullptr) return KVSIFT_INVALID_ARGUMENT;
  if (config->struct_size < sizeof *config) return KVSIFT_INVALID_STRUCT_SIZE;
  if (kvsift_status s = settle_balance(*config, plan)) return s;
  if (kvsift_status s = check_balance_form(*plan, config->error)) return s;
  if (heads < 1 || heads > KVSIFT_CUDA_BALANCE_HEADS) {
    return fail(config->error, KVSIFT_INVALID_ARGUMENT, "heads is ", heads, ", not in 1 .. ", KVSIFT_CUDA_BALANCE_HEADS);
  }
  if (tokens > KVSIFT_MAX_TOKENS || tokens >> plan->c.halvings == 0) {
    return fail(config->error, KVSIFT_INVALID_ARGUMENT, plan->c.halvings, " halvings of ", tokens,
                " tokens: at least one must be left, and KVSIFT_MAX_TOKENS is ", KVSIFT_MAX_TOKENS);
  }
  return KVSIFT_OK;
}

// What can be said of a cache on the device without reading it.
static kvsift_status check_device_rows(const kvsift_cache *cache, kvsift_range range, kvsift_error *error) {
  if (cache == nullptr) return fail(error, KVSIFT_INVALID_ARGUMENT, "cache is null");
  if (cache->struct_size < sizeof *cache) {
    return fail(error, KVSIFT_INVALID_STRUCT_SIZE, "cache->struct_size is ", cache->struct_size);
  }
  if (range.begin >= range.end || range.end > cache->tokens) {
    return fail(error, KVSIFT_INVALID_ARGUMENT, "range [", range.begin, ", ", range.end, ") is empty, or beyond cache->tokens ",
                cache->tokens);
  }
  const uint32_t page = cache->page_tokens;
  if (cache->block_table != nullptr && (page == 0 || (page & (page - 1)) != 0)) {
    return fail(error, KVSIFT_INVALID_ARGUMENT, "cache->page_tokens is ", page, ", no power of two");
  }
  if (kvsift_status s = check_balance_view(&cache->keys, "cache->keys", error)) return s;
  return check_balance_view(&cache->values, "cache->values", error);
}

extern "C" kvsift_status kvsift_cuda_balance_room(const kvsift_balance_config *config, uint32_t heads, uint32_t tokens,
                                                  uint64_t *bytes) {
  BalancePlan plan;
  if (kvsift_status s = check_plan(config, heads, tokens, &plan)) return s;
  if (bytes == nullptr) return fail(config->error, KVSIFT_INVALID_ARGUMENT, "bytes is null");
  *bytes = balance_places(plan, heads, tokens).bytes;
  return KVSIFT_OK;
}

static kvsift_status check_room(const BalancePlan &plan, const BalancePlaces &places, const void *room, uint64_t room_bytes,
                                kvsift_error *error) {
  if (room == nullptr) return fail(error, KVSIFT_INVALID_ARGUMENT, "room is null");
  if (room_bytes < places.bytes) {
    return fail(error, KVSIFT_ARENA_TOO_SMALL, "room of ", room_bytes, " bytes: ", places.bytes, " are needed");
  }
  const std::uint64_t align = by_cublas(plan) ? kProductAlign : KVSIFT_ARENA_ALIGNMENT;
  if (reinterpret_cast<std::uintptr_t>(room) % align == 0) return KVSIFT_OK;
  return fail(error, KVSIFT_MISALIGNED, "room must start at a multiple of ", align);
}

extern "C" kvsift_status kvsift_cuda_balance_prepare(kvsift_cuda_policy *policy, const kvsift_balance_config *config,
                                                     uint32_t heads, uint32_t tokens, void *room, uint64_t room_bytes,
                                                     void *stream) {
  if (!is_policy(policy) || config == nullptr) return KVSIFT_INVALID_ARGUMENT;
  CudaPolicy *own = policy_of(policy);
  if (kvsift_status s = check_usable(own)) return s;
  BalancePlan plan;
  if (kvsift_status s = check_plan(config, heads, tokens, &plan)) return s;
  if (!by_cublas(plan)) return KVSIFT_OK;
  const BalancePlaces places = balance_places(plan, heads, tokens);
  if (kvsift_status s = check_room(plan, places, room, room_bytes, config->error)) return s;
  Products made;
  const Launcher to{own->device, stream, config->error};
  if (kvsift_status s = prepare_products(to, places, static_cast<char *>(room), &made)) return s;
  release_products(&own->products);
  own->products = made;
  return KVSIFT_OK;
}

// By cuBLASLt: what was prepared is for such groups.
static kvsift_status check_prepared(const CudaPolicy &own, const BalancePlan &plan, const BalancePlaces &places) {
  const Products &p = own.products;
  if (!by_cublas(plan) || (p.order == places.order && p.depth == places.depth)) return KVSIFT_OK;
  return fail(plan.c.error, KVSIFT_OUT_OF_ORDER, "form is ", plan.c.form, " with matrices of ", places.order, " x ", places.depth,
              ", prepared are ", p.order, " x ", p.depth, ": call kvsift_cuda_balance_prepare first");
}

extern "C" kvsift_status kvsift_cuda_balance_compress(kvsift_cuda_policy *policy, const kvsift_balance_config *config,
                                                      const kvsift_cache *cache, uint32_t first_head, uint32_t heads,
                                                      kvsift_range range, void *room, uint64_t room_bytes, uint32_t *index,
                                                      float *weight, uint32_t capacity, uint32_t *counts, void *stream) {
  if (!is_policy(policy) || config == nullptr) return KVSIFT_INVALID_ARGUMENT;
  CudaPolicy *own = policy_of(policy);
  if (kvsift_status s = check_usable(own)) return s;
  BalancePlan plan;
  const uint32_t tokens = range.end - range.begin;
  if (kvsift_status s = check_device_rows(cache, range, config->error)) return s;
  if (kvsift_status s = check_plan(config, heads, tokens, &plan)) return s;
  const uint32_t least = tokens >> plan.c.halvings;
  if (index == nullptr || weight == nullptr || counts == nullptr) {
    return fail(config->error, KVSIFT_INVALID_ARGUMENT, "index, weight or counts is null");
  }
  if (capacity < least) {
    return fail(config->error, KVSIFT_INVALID_ARGUMENT, "capacity is ", capacity, ", must be at least ", least);
  }
  const BalancePlaces places = balance_places(plan, heads, tokens);
  if (kvsift_status s = check_room(plan, places, room, room_bytes, config->error)) return s;
  if (kvsift_status s = check_prepared(*own, plan, places)) return s;
  plan.c.error = nullptr;
  const Products *products = by_cublas(plan) ? &own->products : nullptr;
  const BalanceJob job{plan,  *cache, first_head, heads, range, index, weight, counts, capacity, own->image.fault, products};
  const kvsift_status status = compress_heads(Launcher{own->device, stream, config->error}, job, static_cast<char *>(room));
  if (status != KVSIFT_OK) own->lost = status;
  return status;
}

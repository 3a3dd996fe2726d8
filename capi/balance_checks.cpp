#include "balance_checks.h"

namespace kvsift {

namespace {

bool divides(std::uint64_t unit, std::uint64_t bytes) { return bytes % unit == 0; }

bool aligned(const void *p, std::uint64_t unit) {
  return reinterpret_cast<std::uintptr_t>(p) % unit == 0;
}

kvsift_status check_scales(const kvsift_view *view, const char *name, kvsift_error *error) {
  if (view->type != KVSIFT_I8) {
    if (view->scales == nullptr) return KVSIFT_OK;
    return fail(error, KVSIFT_INVALID_ARGUMENT, name,
                ".scales is set, but only int8 rows have scales");
  }
  if (view->scales == nullptr)
    return fail(error, KVSIFT_INVALID_ARGUMENT, name, ".scales is null for int8 rows");
  const bool whole = divides(4, view->scale_token_stride) && divides(4, view->scale_head_stride) &&
                     divides(4, view->scale_page_stride) && aligned(view->scales, 4);
  if (!whole)
    return fail(error, KVSIFT_MISALIGNED, name,
                ".scales and its strides must be multiples of 4 bytes");
  return KVSIFT_OK;
}

kvsift_status check_table(const kvsift_cache *cache, std::uint32_t head, kvsift_range range,
                          kvsift_error *error) {
  if (cache->block_table == nullptr) return KVSIFT_OK;
  const std::uint32_t page = cache->page_tokens;
  if (page == 0 || (page & (page - 1)) != 0) {
    return fail(error, KVSIFT_INVALID_ARGUMENT, "cache.page_tokens is ", page,
                ", must be a power of two");
  }
  const std::int32_t *table = cache->block_table + std::uint64_t{head} * cache->block_table_stride;
  for (std::uint32_t p = range.begin / page; p <= (range.end - 1) / page; ++p) {
    if (table[p] >= 0) continue;
    return fail(error, KVSIFT_INVALID_ARGUMENT, "cache.block_table has page ", table[p], " at ", p,
                ", must be at least 0");
  }
  return KVSIFT_OK;
}

}  // namespace

kvsift_status check_balance_view(const kvsift_view *view, const char *name, kvsift_error *error) {
  if (view == nullptr || view->data == nullptr)
    return fail(error, KVSIFT_INVALID_ARGUMENT, name, " is null");
  if (view->type > KVSIFT_I8) {
    return fail(error, KVSIFT_INVALID_ARGUMENT, name, ".type is ", view->type,
                ", must be a KVSIFT_ type");
  }
  if (view->reserved != 0) {
    return fail(error, KVSIFT_INVALID_ARGUMENT, name, ".reserved is ", view->reserved,
                ", must be 0");
  }
  const std::uint64_t unit = element_bytes(view->type);
  const bool whole = divides(unit, view->token_stride) && divides(unit, view->head_stride) &&
                     divides(unit, view->page_stride) && aligned(view->data, unit);
  if (!whole) {
    return fail(error, KVSIFT_MISALIGNED, name, " and its strides must be multiples of ", unit,
                " bytes");
  }
  return check_scales(view, name, error);
}

kvsift_status check_balance_cache(const kvsift_cache *cache, std::uint32_t head, kvsift_range range,
                                  kvsift_error *error) {
  if (cache == nullptr) return fail(error, KVSIFT_INVALID_ARGUMENT, "cache is null");
  if (cache->struct_size < sizeof *cache) {
    return fail(error, KVSIFT_INVALID_STRUCT_SIZE, "cache.struct_size is ", cache->struct_size,
                ", must be ", static_cast<std::uint64_t>(sizeof *cache));
  }
  if (cache->tokens > KVSIFT_MAX_TOKENS) {
    return fail(error, KVSIFT_INVALID_ARGUMENT, "cache.tokens is ", cache->tokens,
                ", must be at most ", KVSIFT_MAX_TOKENS);
  }
  if (range.begin >= range.end || range.end > cache->tokens) {
    return fail(error, KVSIFT_INVALID_ARGUMENT, "range is [", range.begin, ", ", range.end,
                "), must hold a token and lie within the cache's ", cache->tokens);
  }
  kvsift_status status = check_balance_view(&cache->keys, "cache.keys", error);
  if (status == KVSIFT_OK) status = check_balance_view(&cache->values, "cache.values", error);
  return status == KVSIFT_OK ? check_table(cache, head, range, error) : status;
}

kvsift_status check_balance_rows(const Kernels &kernels, const HeadRows &rows, kvsift_range range,
                                 std::uint32_t dim, const char *name, kvsift_error *error) {
  for (std::uint32_t first = range.begin; first < range.end;) {
    std::uint32_t count = range.end - first;
    const Rows stretch = rows.stretch(first, &count);
    if (!kernels.array.rows_finite(stretch, count, dim)) {
      while (kernels.array.rows_finite(rows.stretch(first, &(count = 1)), 1, dim)) ++first;
      return fail(error, KVSIFT_NOT_FINITE, name, " of token ", first, ", head ", rows.head,
                  ": NaN or infinity");
    }
    first += count;
  }
  return KVSIFT_OK;
}

HeadRows balance_rows(const kvsift_cache *cache, const kvsift_view *view, std::uint32_t head) {
  const std::int32_t *table = cache->block_table;
  if (table != nullptr) table += std::uint64_t{head} * cache->block_table_stride;
  return HeadRows{view, table, cache->page_tokens, head};
}

}  // namespace kvsift

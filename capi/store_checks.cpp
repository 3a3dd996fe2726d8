#include "store_checks.h"

#include <cstring>

#include "core/view.h"

namespace kvsift {
namespace {

constexpr std::uint64_t kPathMost = 4095;

kvsift_status check_slow_tier(const kvsift_store_config &c) {
  switch (c.backend) {
    case KVSIFT_STORE_FILE:
      if (c.path == nullptr || c.path[0] == '\0') {
        return fail(c.error, KVSIFT_INVALID_ARGUMENT, "store config: path is null or empty");
      }
      if (std::strlen(c.path) > kPathMost) {
        return fail(c.error, KVSIFT_INVALID_ARGUMENT, "store config: path is longer than ", kPathMost, " bytes");
      }
      return KVSIFT_OK;
    case KVSIFT_STORE_CUSTOM:
      if (c.device != nullptr && c.device->read != nullptr && c.device->write != nullptr) return KVSIFT_OK;
      return fail(c.error, KVSIFT_INVALID_ARGUMENT, "store config: device, or its read or write, is null");
    case KVSIFT_STORE_HOST:
      return KVSIFT_OK;
    default:
      return fail(c.error, KVSIFT_INVALID_ARGUMENT, "store config: backend is ", c.backend, ", must be KVSIFT_STORE_FILE, "
                  "HOST or CUSTOM");
  }
}

bool divisible(const void *data, std::uint64_t a, std::uint64_t b, std::uint64_t unit) {
  return (reinterpret_cast<std::uintptr_t>(data) | a | b) % unit == 0;
}

kvsift_status check_list(kvsift_error *error, const kvsift_selection &selection, std::uint32_t list) {
  const std::uint32_t count = selection.range_counts[list];
  if (count > selection.range_stride && selection.lists > 1) {
    return fail(error, KVSIFT_INVALID_ARGUMENT, "selection: list ", list, " has ", count,
                " ranges, more than range_stride ", selection.range_stride);
  }
  const kvsift_range *ranges = selection.ranges + std::uint64_t{list} * selection.range_stride;
  std::uint32_t end = 0;
  for (std::uint32_t r = 0; r < count; ++r) {
    if (ranges[r].begin < end || ranges[r].end <= ranges[r].begin || ranges[r].end > selection.tokens) {
      return fail(error, KVSIFT_INVALID_ARGUMENT, "selection: list ", list, ", range [", ranges[r].begin, ", ",
                  ranges[r].end, ") is empty, out of order or beyond its ", selection.tokens, " tokens");
    }
    end = ranges[r].end;
  }
  return KVSIFT_OK;
}

}  // namespace

bool is_store(const kvsift_store *handle) {
  if (handle == nullptr || reinterpret_cast<std::uintptr_t>(handle) % kAlign != 0) return false;
  return store_of(handle)->magic == kStoreMagic;
}

kvsift_status check_config(const kvsift_store_config *config) {
  if (config == nullptr) return KVSIFT_INVALID_ARGUMENT;
  if (config->struct_size < sizeof *config) {
    // The error pointer lies beyond what a shorter struct has.
    return KVSIFT_INVALID_STRUCT_SIZE;
  }
  if (config->io == KVSIFT_STORE_IO_URING && config->backend != KVSIFT_STORE_FILE) {
    return fail(config->error, KVSIFT_INVALID_ARGUMENT, "store config: io is KVSIFT_STORE_IO_URING, but backend is ",
                config->backend, ": only KVSIFT_STORE_FILE has it");
  }
  return check_slow_tier(*config);
}

kvsift_status check_store_layer(Store *store, std::uint32_t layer) {
  if (layer < store->g.layers) return KVSIFT_OK;
  return fail(&store->error, KVSIFT_INVALID_ARGUMENT, "layer is ", layer, ", the store has ", store->g.layers);
}

kvsift_status check_append(kvsift_error *error, std::uint32_t layer, std::uint32_t have, std::uint32_t max_tokens,
                           std::uint32_t first_token, std::uint32_t tokens) {
  if (first_token != have) {
    return fail(error, KVSIFT_OUT_OF_ORDER, "append: first_token is ", first_token, ", layer ", layer, " has ", have,
                " tokens");
  }
  if (tokens <= max_tokens - have) return KVSIFT_OK;
  return fail(error, KVSIFT_CAPACITY, "append: ", tokens, " tokens after ", have, " exceed max_tokens ", max_tokens);
}

kvsift_status check_rows(kvsift_error *error, const Geometry &g, const char *name, const kvsift_view *view) {
  if (view == nullptr || view->data == nullptr) return fail(error, KVSIFT_INVALID_ARGUMENT, name, " is null");
  if (view->type != g.type) {
    return fail(error, KVSIFT_INVALID_ARGUMENT, name, "->type is ", view->type, ", the store's is ", g.type);
  }
  const std::uint64_t unit = element_bytes(view->type);
  if (!divisible(view->data, view->token_stride, view->head_stride, unit)) {
    return fail(error, KVSIFT_MISALIGNED, name, ": data or a stride is no multiple of the element's ", unit, " bytes");
  }
  if ((view->type == KVSIFT_I8) != (view->scales != nullptr)) {
    return fail(error, KVSIFT_INVALID_ARGUMENT, name, "->scales must be set for KVSIFT_I8, and only then");
  }
  if (view->scales == nullptr || divisible(view->scales, view->scale_token_stride, view->scale_head_stride, 4)) {
    return KVSIFT_OK;
  }
  return fail(error, KVSIFT_MISALIGNED, name, ": scales or a scale stride is no multiple of 4 bytes");
}

kvsift_status check_selection(kvsift_error *error, const Geometry &g, const kvsift_selection *selection) {
  if (kvsift_status s = check_size(error, "selection", selection)) return s;
  const std::uint32_t expected = selection->per_query_head != 0 ? g.query_heads : g.kv_heads;
  if (selection->lists != expected) {
    return fail(error, KVSIFT_INVALID_ARGUMENT, "selection: lists is ", selection->lists, ", the store's heads make ",
                expected);
  }
  if (selection->ranges == nullptr || selection->range_counts == nullptr) {
    return fail(error, KVSIFT_INVALID_ARGUMENT, "selection: ranges or range_counts is null");
  }
  if (selection->block_tokens == 0) return fail(error, KVSIFT_INVALID_ARGUMENT, "selection: block_tokens is 0");
  for (std::uint32_t list = 0; list < selection->lists; ++list) {
    if (kvsift_status s = check_list(error, *selection, list)) return s;
  }
  return KVSIFT_OK;
}

kvsift_status check_no_coreset(kvsift_error *error, const kvsift_selection &selection) {
  if (selection.tail != KVSIFT_TAIL_BALANCE) return KVSIFT_OK;
  return fail(error, KVSIFT_UNSUPPORTED, "resolve: selection->tail is KVSIFT_TAIL_BALANCE, whose rows lie all over the cache: "
              "a store has those of the ranges");
}

}  // namespace kvsift

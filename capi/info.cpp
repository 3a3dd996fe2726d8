// Text, versions and figures.
#include <cstring>

#include "check.h"
#include "methods/method.h"

using namespace kvsift;

extern "C" const char *kvsift_status_string(kvsift_status status) {
  switch (status) {
    case KVSIFT_OK: return "ok";
    case KVSIFT_INVALID_ARGUMENT: return "invalid argument";
    case KVSIFT_INVALID_STRUCT_SIZE: return "struct_size is not one this library knows";
    case KVSIFT_ARENA_TOO_SMALL: return "arena too small";
    case KVSIFT_MISALIGNED: return "misaligned memory";
    case KVSIFT_NOT_FINITE: return "not a finite number";
    case KVSIFT_OUT_OF_ORDER: return "call out of order";
    case KVSIFT_CAPACITY: return "more tokens than the policy has room for";
    case KVSIFT_ROLLBACK: return "further back than the policy can go";
    case KVSIFT_UNSUPPORTED: return "not supported";
    case KVSIFT_CORRUPT: return "damaged data";
    case KVSIFT_VERSION_MISMATCH: return "data of another version";
    case KVSIFT_CONFIG_MISMATCH: return "data of another configuration";
    case KVSIFT_IO: return "input or output failed";
    case KVSIFT_NO_DEVICE: return "no CUDA device";
    case KVSIFT_DEVICE: return "the CUDA device failed";
    default: return "unknown status";
  }
}

extern "C" const char *kvsift_last_error(const kvsift_policy *policy) {
  return is_policy(policy) ? policy_of(policy)->error.message : "";
}

extern "C" const char *kvsift_method_name(kvsift_method method) {
  const Method *table = method_of(method);
  return table == nullptr ? nullptr : table->name;
}

extern "C" kvsift_status kvsift_method_from_name(const char *name, kvsift_method *method) {
  if (name == nullptr || method == nullptr) return KVSIFT_INVALID_ARGUMENT;
  for (kvsift_method m = 0; m < KVSIFT_METHOD_COUNT; ++m) {
    if (std::strcmp(name, method_of(m)->name) != 0) continue;
    *method = m;
    return KVSIFT_OK;
  }
  return KVSIFT_INVALID_ARGUMENT;
}

extern "C" uint32_t kvsift_version(void) {
  return KVSIFT_VERSION_MAJOR << 16 | KVSIFT_VERSION_MINOR << 8 | KVSIFT_VERSION_PATCH;
}

extern "C" uint64_t kvsift_arena_alignment(void) { return kAlign; }

extern "C" kvsift_status kvsift_get_build_info(kvsift_build_info *info) {
  if (info == nullptr) return KVSIFT_INVALID_ARGUMENT;
  if (info->struct_size < sizeof *info) return KVSIFT_INVALID_STRUCT_SIZE;
  info->version = kvsift_version();
#if defined(__x86_64__)
  info->levels = "scalar avx2 avx512";
#elif defined(__aarch64__)
  info->levels = "scalar neon";
#else
  info->levels = "scalar";
#endif
  info->level = level_name(best_level());
#ifdef KVSIFT_HAS_CUDA
  info->cuda = 1;
#else
  info->cuda = 0;
#endif
  return KVSIFT_OK;
}

extern "C" kvsift_status kvsift_get_stats(const kvsift_policy *policy, kvsift_stats *stats) {
  if (!is_policy(policy)) return KVSIFT_INVALID_ARGUMENT;
  const Policy *p = policy_of(policy);
  if (stats == nullptr) return fail_in(p, KVSIFT_INVALID_ARGUMENT, "stats is null");
  if (stats->struct_size < sizeof *stats) {
    return fail_in(p, KVSIFT_INVALID_STRUCT_SIZE, "stats->struct_size is ", stats->struct_size);
  }
  const std::uint32_t size = stats->struct_size;
  *stats = kvsift_stats{};
  stats->struct_size = size;
  for (std::uint32_t layer = 0; layer < p->s.sparse_layers; ++layer) {
    for (std::uint32_t head = 0; head < p->s.c.kv_heads; ++head) {
      const Counters &c = p->unit(layer, head)->counters;
      stats->selections += c.selections;
      stats->tokens_kept += c.tokens_kept;
      stats->tokens_total += c.tokens_total;
      stats->tokens_read += c.tokens_read;
      stats->calibrations += c.calibrations;
      stats->recovery_sum += c.recovery_sum;
      stats->columns_computed += c.columns_computed;
      stats->columns_total += c.columns_total;
      stats->state_bytes_touched += c.state_bytes_touched;
      stats->missed_blocks += c.missed_blocks;
    }
  }
  return KVSIFT_OK;
}

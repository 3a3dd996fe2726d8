// Life cycle of device policies, and copies.
#include "kvsift/kvsift_cuda.h"

#include <cstring>

#include "cuda/methods/method.h"
#include "cuda/policy/create.h"
#include "cuda_check.h"
#include "methods/method.h"

using namespace kvsift;

static kvsift_status check_config(const kvsift_policy_config *config) {
  if (config == nullptr) return KVSIFT_INVALID_ARGUMENT;
  if (config->struct_size < sizeof *config) return KVSIFT_INVALID_STRUCT_SIZE;
  return KVSIFT_OK;
}

extern "C" kvsift_status kvsift_cuda_policy_sizes(const kvsift_policy_config *config, kvsift_cuda_sizes *sizes) {
  if (kvsift_status s = check_config(config)) return s;
  if (sizes == nullptr) return fail(config->error, KVSIFT_INVALID_ARGUMENT, "sizes is null");
  if (sizes->struct_size < sizeof *sizes) {
    return fail(config->error, KVSIFT_INVALID_STRUCT_SIZE, "sizes->struct_size is ", sizes->struct_size);
  }
  CudaPlaces places;
  if (kvsift_status s = lay_out_cuda(*config, &places)) return s;
  sizes->device = places.device_bytes;
  sizes->pinned = places.pinned_bytes;
  sizes->host = places.host_bytes;
  return KVSIFT_OK;
}

struct ArenaCheck {
  const char *name;
  const void *memory;
  std::uint64_t bytes, wanted, alignment;
};

static kvsift_status check_arenas(const CudaPlaces &places, const kvsift_cuda_arenas *arenas, kvsift_error *error) {
  if (arenas == nullptr) return fail(error, KVSIFT_INVALID_ARGUMENT, "arenas is null");
  if (arenas->struct_size < sizeof *arenas) {
    return fail(error, KVSIFT_INVALID_STRUCT_SIZE, "arenas->struct_size is ", arenas->struct_size);
  }
  const ArenaCheck checks[] = {
      {"device", arenas->device, arenas->device_bytes, places.device_bytes, KVSIFT_CUDA_ALIGNMENT},
      {"pinned", arenas->pinned, arenas->pinned_bytes, places.pinned_bytes, KVSIFT_CUDA_ALIGNMENT},
      {"host", arenas->host, arenas->host_bytes, places.host_bytes, KVSIFT_ARENA_ALIGNMENT},
  };
  for (const ArenaCheck &c : checks) {
    if (c.memory == nullptr) return fail(error, KVSIFT_INVALID_ARGUMENT, "arenas->", c.name, " is null");
    if (reinterpret_cast<std::uintptr_t>(c.memory) % c.alignment != 0) {
      return fail(error, KVSIFT_MISALIGNED, "arenas->", c.name, " is no multiple of ", c.alignment);
    }
    if (c.bytes >= c.wanted) continue;
    return fail(error, KVSIFT_ARENA_TOO_SMALL, "arenas->", c.name, "_bytes is ", c.bytes, ", ", c.wanted, " are needed");
  }
  return KVSIFT_OK;
}

static kvsift_status create(const kvsift_policy_config &config, const kvsift_cuda_arenas *arenas, void *stream,
                            kvsift_cuda_policy **policy) {
  CudaPlaces places;
  CudaPolicy *made = nullptr;
  if (kvsift_status s = lay_out_cuda(config, &places)) return s;
  if (kvsift_status s = check_arenas(places, arenas, config.error)) return s;
  const CudaArenas memory{arenas->device, arenas->pinned, arenas->host};
  if (kvsift_status s = create_on_device(places, memory, stream, &made, config.error)) return s;
  *policy = reinterpret_cast<kvsift_cuda_policy *>(made);
  return KVSIFT_OK;
}

extern "C" kvsift_status kvsift_cuda_policy_create(const kvsift_policy_config *config, const kvsift_cuda_arenas *arenas,
                                                   void *stream, kvsift_cuda_policy **policy) {
  if (policy != nullptr) *policy = nullptr;
  if (kvsift_status s = check_config(config)) return s;
  if (policy == nullptr) return fail(config->error, KVSIFT_INVALID_ARGUMENT, "policy is null");
  return create(*config, arenas, stream, policy);
}

extern "C" kvsift_status kvsift_cuda_policy_reset(kvsift_cuda_policy *policy, void *stream) {
  if (!is_policy(policy)) return KVSIFT_INVALID_ARGUMENT;
  return reset_on_device(policy_of(policy), stream);
}

extern "C" kvsift_status kvsift_cuda_policy_destroy(kvsift_cuda_policy *policy) {
  if (!is_policy(policy)) return KVSIFT_INVALID_ARGUMENT;
  destroy_on_device(policy_of(policy));
  return KVSIFT_OK;
}

extern "C" kvsift_status kvsift_cuda_policy_get_info(const kvsift_cuda_policy *policy, kvsift_policy_info *info) {
  if (!is_policy(policy)) return KVSIFT_INVALID_ARGUMENT;
  const Policy *p = &policy_of(policy)->host;
  if (info == nullptr) return fail_in(p, KVSIFT_INVALID_ARGUMENT, "info is null");
  if (info->struct_size < sizeof *info) {
    return fail_in(p, KVSIFT_INVALID_STRUCT_SIZE, "info->struct_size is ", info->struct_size);
  }
  const Method &method = *method_of(p->s.c.method);
  info->needs = p->s.needs;
  info->prefill_rows = method.prefill_rows == nullptr ? 0 : method.prefill_rows(p->s);
  info->evicts = method.evicts;
  info->tokens = p->tokens;
  info->decode_steps = p->decode_steps;
  info->max_ranges = p->s.list_ranges;
  info->max_blocks = p->s.list_blocks;
  info->arena_bytes = policy_of(policy)->image.room.bytes;
  return KVSIFT_OK;
}

// The configurations as far as they shape the state.
static bool same_configuration(const Settings &a, const Settings &b) {
  kvsift_policy_config x = a.c, y = b.c;
  x.predictor = y.predictor = nullptr;
  x.struct_size = y.struct_size = 0;
  x.error = y.error = nullptr;
  constexpr std::size_t end = offsetof(kvsift_policy_config, dense_tokens) + sizeof(std::uint32_t);  // padding follows
  constexpr std::size_t seed = offsetof(kvsift_policy_config, seed);
  return std::memcmp(&x, &y, end) == 0 &&
         std::memcmp(reinterpret_cast<char *>(&x) + seed, reinterpret_cast<char *>(&y) + seed, sizeof x - seed) == 0;
}

static kvsift_status check_peer(const Policy *p, const kvsift_policy *peer, const char *name) {
  if (!is_policy(peer)) return fail_in(p, KVSIFT_INVALID_ARGUMENT, name, " is no policy");
  if (same_configuration(p->s, policy_of(peer)->s)) return KVSIFT_OK;
  return fail_in(p, KVSIFT_CONFIG_MISMATCH, name, " is a policy of another configuration");
}

extern "C" kvsift_status kvsift_cuda_upload(kvsift_cuda_policy *policy, const kvsift_policy *from, void *stream) {
  if (!is_policy(policy)) return KVSIFT_INVALID_ARGUMENT;
  if (kvsift_status s = check_peer(&policy_of(policy)->host, from, "from")) return s;
  return upload(policy_of(policy), *policy_of(from), stream);
}

extern "C" kvsift_status kvsift_cuda_download(const kvsift_cuda_policy *policy, kvsift_policy *to, void *stream) {
  if (!is_policy(policy)) return KVSIFT_INVALID_ARGUMENT;
  auto *p = const_cast<CudaPolicy *>(policy_of(policy));
  if (kvsift_status s = check_usable(p)) return s;
  if (kvsift_status s = check_peer(&p->host, to, "to")) return s;
  return download(*p, policy_of(to), stream, &p->host.error);
}

extern "C" kvsift_status kvsift_cuda_fork(const kvsift_cuda_policy *policy, const kvsift_cuda_arenas *arenas, void *stream,
                                          kvsift_cuda_policy **copy) {
  if (copy != nullptr) *copy = nullptr;
  if (!is_policy(policy)) return KVSIFT_INVALID_ARGUMENT;
  auto *from = const_cast<CudaPolicy *>(policy_of(policy));
  if (kvsift_status s = check_usable(from)) return s;
  if (copy == nullptr) return fail_in(&from->host, KVSIFT_INVALID_ARGUMENT, "copy is null");
  kvsift_policy_config config = from->host.s.c;
  config.struct_size = sizeof config;
  config.error = &from->host.error;
  if (kvsift_status s = create(config, arenas, stream, copy)) return s;
  const kvsift_status status = copy_policy(*from, policy_of(*copy), stream);
  if (status == KVSIFT_OK) return status;
  from->host.error = policy_of(*copy)->host.error;
  destroy_on_device(policy_of(*copy));
  *copy = nullptr;
  return status;
}

extern "C" const char *kvsift_cuda_last_error(const kvsift_cuda_policy *policy) {
  return is_policy(policy) ? policy_of(policy)->host.error.message : "";
}

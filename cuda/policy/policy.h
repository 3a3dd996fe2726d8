// A device policy as the host keeps it, in the host arena.
#pragma once

#include "cuda/balance/products.h"
#include "cuda/core/launcher.h"
#include "cuda/policy/image.h"

namespace kvsift {

constexpr std::uint64_t kAliveOnDevice = 0x6b76736966744355ull;

struct CudaPolicy {
  std::uint64_t alive;
  Policy host;          // settings, places, counters and the error as the edge's checks want them; no units lie behind it
  CudaDevice device;
  Products products;    // of the balanced form by cuBLASLt, once it is prepared
  Image image;
  Fault *fault;         // pinned
  std::uint64_t bytes;  // of this arena
  std::uint32_t present_layer;  // 1 + the layer whose choice was cut to what its cache has, since the last select; 0: none
  kvsift_status lost;   // what every call answers; KVSIFT_OK: not lost
  Offset<std::uint32_t> keys_seen, rows_seen;  // [sparse layers][KV heads], what the host knows

  std::uint32_t *seen(const Offset<std::uint32_t> &counts, std::uint32_t layer) {
    return counts.in(this) + std::uint64_t{layer - host.s.c.dense_layers} * host.s.c.kv_heads;
  }
  const std::uint32_t *seen(const Offset<std::uint32_t> &counts, std::uint32_t layer) const {
    return const_cast<CudaPolicy *>(this)->seen(counts, layer);
  }
};

// Where everything lies in the three arenas.
struct CudaPlaces {
  Settings settings;
  PolicyPlaces policy;
  RoomPlaces room;
  std::uint64_t device_bytes, pinned_bytes, host_bytes;
  Offset<std::uint32_t> keys_seen, rows_seen;
};

// Any status a bad configuration gets, or UNSUPPORTED.
kvsift_status lay_out_cuda(const kvsift_policy_config &config, CudaPlaces *places);

// What kernels are told of an arena at `base`.
Image image_of(const CudaPlaces &places, const Policy &host, char *base, Fault *fault);

}  // namespace kvsift

// What a step does with the store, after the edge's checks.
#pragma once

#include "cuda/store/store.h"

namespace kvsift {

kvsift_status append(CudaStore *store, std::uint32_t layer, std::uint32_t tokens, const kvsift_view &keys,
                     const kvsift_view &values, CUstream stream);
kvsift_status prefetch(CudaStore *store, std::uint32_t layer, const kvsift_selection &selection, CUstream stream);
// All blocks of the selection are there once the stream has come so far; with a late cap, of what it then is.
kvsift_status resolve(CudaStore *store, std::uint32_t layer, kvsift_selection *selection, CUstream stream);
void describe_cache(const CudaStore &store, std::uint32_t layer, kvsift_cache *cache);
kvsift_status truncate(CudaStore *store, std::uint32_t layer, std::uint32_t tokens, CUstream stream);

}  // namespace kvsift

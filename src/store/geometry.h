// Sizes and places that follow from a configuration: of a record, of the fast tier, of the slow tier's image.
#pragma once

#include <cstdint>

#include "kvsift/store.h"

namespace kvsift {

// The most records that go in one transfer.
constexpr std::uint32_t kRunMost = 16;

// The slow tier, in bytes from its start:
//     header | one entry a block | records [layer][KV head][block]
// each of them a multiple of `alignment`. A record, and the slot that holds it:
//     keys [block_tokens][head_dim] | values | pad to 16 | key scales, value scales (I8) | pad to alignment
struct Geometry {
  std::uint32_t layers, query_heads, kv_heads, head_dim;
  std::uint32_t block_tokens, block_shift, blocks;  // blocks: of max_tokens
  std::uint32_t max_tokens;
  kvsift_type type, storage;
  std::uint32_t alignment, checksums;
  std::uint32_t fast_blocks, resident_layers, sink_tokens, local_tokens;
  std::uint64_t row_bytes;     // as stored
  std::uint64_t keys_bytes;    // of a record; the values have as many
  std::uint64_t scales_at;     // I8
  std::uint64_t record_bytes;  // without padding
  std::uint64_t slot_bytes;
  std::uint64_t header_bytes, entry_bytes, records_at, slow_bytes;

  std::uint64_t records_of_block() const { return std::uint64_t{layers} * kv_heads; }
  std::uint32_t slots_of_layer(std::uint32_t layer) const {
    return kv_heads * (layer < resident_layers ? blocks : fast_blocks);
  }
  std::uint64_t slots() const {
    return std::uint64_t{kv_heads} * (std::uint64_t{resident_layers} * blocks +
                                      std::uint64_t{layers - resident_layers} * fast_blocks);
  }
  std::uint64_t record_index(std::uint32_t layer, std::uint32_t head, std::uint32_t block) const {
    return (std::uint64_t{layer} * kv_heads + head) * blocks + block;
  }
  std::uint64_t record_at(std::uint32_t layer, std::uint32_t head, std::uint32_t block) const {
    return records_at + record_index(layer, head, block) * slot_bytes;
  }
  std::uint64_t entry_at(std::uint32_t block) const { return header_bytes + block * entry_bytes; }
};

// Checks a configuration's numbers and fills the geometry.
kvsift_status make_geometry(const kvsift_store_config &config, Geometry *geometry);

}  // namespace kvsift

// What the slow tier says about itself: a header, and for each block an entry written after its records. All fields are
// little-endian, as are the machines this runs on.
#pragma once

#include <cstdint>

#include "store/geometry.h"

namespace kvsift {

constexpr std::uint64_t kImageMagic = 0x65726f747366766bull;  // "kvfstore"
constexpr std::uint64_t kEntryMagic = 0x79727465736b766bull;  // "kvksetry"
constexpr std::uint32_t kImageVersion = 1;

struct ImageHeader {
  std::uint64_t magic;
  std::uint32_t version, header_bytes;
  std::uint64_t identity;  // differs from store to store, so that what an older one left is not taken for ours
  std::uint32_t layers, kv_heads, head_dim, max_tokens, block_tokens, storage, alignment, checksums;
  std::uint64_t slow_bytes;
  std::uint64_t sum;  // of all the above
};

// Followed by the checksums of the block's records, [layer][KV head].
struct ImageEntry {
  std::uint64_t magic;
  std::uint64_t identity;
  std::uint32_t block;
  std::uint32_t epoch;  // grows with each open and truncate: an entry of an earlier one cannot follow a later one
  std::uint64_t sum;    // of the fields above and the checksums

  std::uint64_t *sums() { return reinterpret_cast<std::uint64_t *>(this + 1); }
  const std::uint64_t *sums() const { return reinterpret_cast<const std::uint64_t *>(this + 1); }
};

void write_header(const Geometry &g, std::uint64_t identity, ImageHeader *header);

// OK, or what is wrong with the image `name`: CORRUPT, VERSION_MISMATCH or CONFIG_MISMATCH.
kvsift_status check_header(const Geometry &g, const ImageHeader &header, const char *name, kvsift_error *error);

// Fills in everything but the record checksums, which must be there.
void seal_entry(const Geometry &g, std::uint64_t identity, std::uint32_t block, std::uint32_t epoch,
                ImageEntry *entry);
bool entry_holds(const Geometry &g, std::uint64_t identity, std::uint32_t block, const ImageEntry *entry);

// The checksum of a record; its place goes in, so that a record that strayed is not taken for another.
std::uint64_t record_sum(const void *record, std::uint64_t bytes, std::uint64_t identity, std::uint64_t place);

}  // namespace kvsift

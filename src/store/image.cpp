#include "store/image.h"

#include <cstddef>
#include <cstring>

#include "core/checksum.h"
#include "core/status.h"

namespace kvsift {
namespace {

std::uint64_t header_sum(const ImageHeader &header) {
  return checksum(&header, offsetof(ImageHeader, sum));
}

std::uint64_t entry_sum(const Geometry &g, const ImageEntry *entry) {
  const std::uint64_t head = checksum(entry, offsetof(ImageEntry, sum));
  return checksum(entry->sums(), g.records_of_block() * sizeof(std::uint64_t), head);
}

}  // namespace

void write_header(const Geometry &g, std::uint64_t identity, ImageHeader *header) {
  *header = ImageHeader{kImageMagic, kImageVersion, sizeof(ImageHeader), identity, g.layers, g.kv_heads,
                        g.head_dim, g.max_tokens, g.block_tokens, g.storage, g.alignment, g.checksums,
                        g.slow_bytes, 0};
  header->sum = header_sum(*header);
}

kvsift_status check_header(const Geometry &g, const ImageHeader &header, const char *name,
                           kvsift_error *error) {
  if (header.magic != kImageMagic) return fail(error, KVSIFT_CORRUPT, name, ": not a store");
  if (header.version != kImageVersion) {
    return fail(error, KVSIFT_VERSION_MISMATCH, name, ": version ", header.version, ", this library reads ",
                kImageVersion);
  }
  if (header.sum != header_sum(header)) return fail(error, KVSIFT_CORRUPT, name, ": the header is damaged");
  ImageHeader ours;
  write_header(g, header.identity, &ours);
  const struct {
    const char *field;
    std::uint32_t theirs, ours;
  } fields[] = {
      {"layers", header.layers, ours.layers},
      {"kv_heads", header.kv_heads, ours.kv_heads},
      {"head_dim", header.head_dim, ours.head_dim},
      {"max_tokens", header.max_tokens, ours.max_tokens},
      {"block_tokens", header.block_tokens, ours.block_tokens},
      {"storage", header.storage, ours.storage},
      {"alignment", header.alignment, ours.alignment},
      {"checksums", header.checksums, ours.checksums},
  };
  for (const auto &f : fields) {
    if (f.theirs != f.ours) {
      return fail(error, KVSIFT_CONFIG_MISMATCH, name, ": ", f.field, " is ", f.theirs, ", the config says ",
                  f.ours);
    }
  }
  if (header.header_bytes != sizeof(ImageHeader) || header.slow_bytes != g.slow_bytes) {
    return fail(error, KVSIFT_CORRUPT, name, ": the header contradicts itself");
  }
  return KVSIFT_OK;
}

void seal_entry(const Geometry &g, std::uint64_t identity, std::uint32_t block, std::uint32_t epoch,
                ImageEntry *entry) {
  entry->magic = kEntryMagic;
  entry->identity = identity;
  entry->block = block;
  entry->epoch = epoch;
  entry->sum = entry_sum(g, entry);
}

bool entry_holds(const Geometry &g, std::uint64_t identity, std::uint32_t block, const ImageEntry *entry) {
  return entry->magic == kEntryMagic && entry->identity == identity && entry->block == block &&
         entry->sum == entry_sum(g, entry);
}

// Four independent chains, or the multiplier's latency would bound the speed.
std::uint64_t record_sum(const void *record, std::uint64_t bytes, std::uint64_t identity, std::uint64_t place) {
  constexpr std::uint64_t kPrime = 0x100000001b3ull;
  std::uint64_t chain[4] = {identity, place, ~identity, ~place};
  const auto *p = static_cast<const unsigned char *>(record);
  std::uint64_t at = 0;
  for (; at + 32 <= bytes; at += 32) {
    std::uint64_t words[4];
    std::memcpy(words, p + at, 32);
    for (int i = 0; i < 4; ++i) {
      chain[i] = (chain[i] ^ words[i]) * kPrime;
      chain[i] ^= chain[i] >> 32;
    }
  }
  return checksum(p + at, bytes - at, checksum(chain, sizeof chain));
}

}  // namespace kvsift

#include "store/recover.h"

#include <cerrno>
#include <cstring>

#include <fcntl.h>
#include <unistd.h>

#include "core/checksum.h"
#include "core/status.h"
#include "store/clock.h"

namespace kvsift {
namespace {

// What open has found so far.
struct Found {
  std::uint32_t blocks, epoch;  // completed, and the last one's epoch
  std::uint32_t latest;         // epoch of any entry
};

std::uint64_t new_identity(const Store *store) {
  const std::uint64_t parts[] = {now_ns(), static_cast<std::uint64_t>(getpid()),
                                 reinterpret_cast<std::uintptr_t>(store)};
  timespec wall;
  clock_gettime(CLOCK_REALTIME, &wall);
  return checksum(parts, sizeof parts,
                  static_cast<std::uint64_t>(wall.tv_sec) * 1000000007u + static_cast<std::uint64_t>(wall.tv_nsec));
}

int move(Store *store, bool write, std::uint64_t offset, void *data, std::uint64_t bytes) {
  Span span{data, bytes};
  return transfer(store->device, write, offset, &span, 1);
}

// The first transfer of a store: a disk may take the flag for O_DIRECT and then not this alignment.
int move_header(Store *store, bool write) {
  Device &device = store->device;
  int result = move(store, write, 0, store->entry, store->g.header_bytes);
  if (result == -EINVAL && device.direct != 0 && fcntl(device.fd, F_SETFL, 0) == 0) {
    device.direct = 0;
    result = move(store, write, 0, store->entry, store->g.header_bytes);
  }
  return result;
}

void take_entry(Store *store, std::uint32_t block, const ImageEntry *entry, Found *found) {
  const Geometry &g = store->g;
  if (!entry_holds(g, store->identity, block, entry)) return;
  if (entry->epoch > found->latest) found->latest = entry->epoch;
  if (block != found->blocks || entry->epoch < found->epoch) return;
  if (block == g.max_tokens >> g.block_shift) return;  // max_tokens ends within it: it is never completed
  for (std::uint64_t i = 0; i < g.records_of_block(); ++i) {
    store->sums[i * g.blocks + block] = entry->sums()[i];
  }
  found->epoch = entry->epoch;
  ++found->blocks;
}

kvsift_status read_entries(Store *store, Found *found, kvsift_error *error) {
  const Geometry &g = store->g;
  const std::uint64_t room = g.slots() * g.slot_bytes / g.entry_bytes;
  for (std::uint32_t block = 0; block < g.blocks;) {
    const std::uint64_t left = g.blocks - block;
    const auto count = static_cast<std::uint32_t>(left < room ? left : room);
    // A file cut short may end among the entries: what is there still counts.
    std::memset(store->memory, 0, count * g.entry_bytes);
    const int result = move(store, false, g.entry_at(block), store->memory, count * g.entry_bytes);
    if (result != 0 && result != kEndOfDevice) {
      return fail_transfer(error, store->device, false, g.entry_at(block), result);
    }
    for (std::uint32_t i = 0; i < count; ++i) {
      take_entry(store, block + i, reinterpret_cast<ImageEntry *>(store->memory + i * g.entry_bytes), found);
    }
    if (result == kEndOfDevice) break;
    block += count;
  }
  return KVSIFT_OK;
}

// Cuts found->blocks at the first record of one head that is not as its entry says.
kvsift_status check_records(Store *store, std::uint32_t layer, std::uint32_t head, Found *found,
                            kvsift_error *error) {
  const Geometry &g = store->g;
  const auto room = static_cast<std::uint32_t>(g.slots() < 256 ? g.slots() : 256);
  for (std::uint32_t block = 0; block < found->blocks;) {
    const std::uint32_t left = found->blocks - block, count = left < room ? left : room;
    const std::uint64_t offset = g.record_at(layer, head, block);
    std::memset(store->memory, 0, count * g.slot_bytes);
    const int result = move(store, false, offset, store->memory, count * g.slot_bytes);
    if (result != 0 && result != kEndOfDevice) return fail_transfer(error, store->device, false, offset, result);
    for (std::uint32_t i = 0; i < count; ++i) {
      const std::uint64_t index = g.record_index(layer, head, block + i);
      const std::uint64_t sum = record_sum(store->memory + i * g.slot_bytes, g.record_bytes, store->identity, index);
      if (sum == store->sums[index]) continue;
      found->blocks = block + i;
      return KVSIFT_OK;
    }
    block += count;
  }
  return KVSIFT_OK;
}

}  // namespace

kvsift_status make_image(Store *store, kvsift_error *error) {
  store->identity = new_identity(store);
  store->epoch = 1;
  std::memset(store->entry, 0, store->g.header_bytes);
  ImageHeader header;
  write_header(store->g, store->identity, &header);
  std::memcpy(store->entry, &header, sizeof header);
  const int result = move_header(store, true);
  return result == 0 ? KVSIFT_OK : fail_transfer(error, store->device, true, 0, result);
}

kvsift_status recover(Store *store, bool verify, kvsift_error *error) {
  const Geometry &g = store->g;
  const int result = move_header(store, false);
  if (result == kEndOfDevice) return fail(error, KVSIFT_CORRUPT, store->device.name, ": too short for a header");
  if (result != 0) return fail_transfer(error, store->device, false, 0, result);
  ImageHeader header;
  std::memcpy(&header, store->entry, sizeof header);
  if (kvsift_status s = check_header(g, header, store->device.name, error)) return s;
  store->identity = header.identity;

  Found found{0, 0, 0};
  if (kvsift_status s = read_entries(store, &found, error)) return s;
  const std::uint32_t claimed = found.blocks;
  for (std::uint32_t l = 0; verify && g.checksums != 0 && l < g.layers; ++l) {
    for (std::uint32_t h = 0; h < g.kv_heads; ++h) {
      if (kvsift_status s = check_records(store, l, h, &found, error)) return s;
    }
  }
  if (store->device.kind == KVSIFT_STORE_FILE) {
    if (kvsift_status s = restore_size(store->device, error)) return s;
  }
  if (found.blocks < claimed) {
    if (kvsift_status s = erase_entry(store, found.blocks)) {
      if (error != nullptr) *error = store->error;
      return s;
    }
  }
  store->epoch = found.latest + 1;
  store->committed = store->entries = found.blocks;
  for (std::uint32_t b = 0; b < found.blocks; ++b) {
    store->written[b] = static_cast<std::uint32_t>(g.records_of_block());
  }
  for (std::uint32_t l = 0; l < g.layers; ++l) store->layers[l].tokens = found.blocks << g.block_shift;
  return KVSIFT_OK;
}

kvsift_status erase_entry(Store *store, std::uint32_t block) {
  const Geometry &g = store->g;
  std::memset(store->entry, 0, g.entry_bytes);
  const int result = move(store, true, g.entry_at(block), store->entry, g.entry_bytes);
  if (result == 0) return KVSIFT_OK;
  return fail_transfer(&store->error, store->device, true, g.entry_at(block), result);
}

}  // namespace kvsift

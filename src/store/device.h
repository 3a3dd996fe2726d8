// The slow tier as bytes at offsets: a file, memory, or the caller's own functions.
#pragma once

#include <cstdint>

#include "kvsift/store.h"

namespace kvsift {

using Span = kvsift_store_span;

struct Device {
  std::uint32_t kind;  // KVSIFT_STORE_*
  int fd;              // FILE, else -1
  std::uint32_t direct;
  std::uint8_t *memory;  // HOST
  std::uint64_t bytes;
  kvsift_store_device custom;
  const char *name;  // for sentences: the path, "host memory" or "device"
};

constexpr int kEndOfDevice = 1;  // of transfer: a read ran past the end

// Reads or writes all of the spans, which it uses up. 0, an errno made negative, or kEndOfDevice.
int transfer(const Device &device, bool write, std::uint64_t offset, Span *spans, std::uint32_t count);

// What `transfer` does with a part already done by somebody else.
void skip(Span **spans, std::uint32_t *count, std::uint64_t bytes);

int sync(const Device &device);

// Opens, locks and, for a new store, empties and preallocates the file at device->name.
kvsift_status open_file(Device *device, bool create, bool direct, kvsift_error *error);
// A file that was cut short gets its size back.
kvsift_status restore_size(const Device &device, kvsift_error *error);
void close_file(Device *device);

// "no space left on device (errno 28)" without the C library's locale and buffers.
const char *errno_text(int error);

// IO, with what was tried and where.
kvsift_status fail_transfer(kvsift_error *error, const Device &device, bool write, std::uint64_t offset,
                            int result);

}  // namespace kvsift

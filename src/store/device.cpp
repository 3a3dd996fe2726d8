#include "store/device.h"

#include <cerrno>
#include <cstring>

#include <sys/uio.h>
#include <unistd.h>

#include "core/status.h"

namespace kvsift {
namespace {

static_assert(sizeof(Span) == sizeof(iovec) || sizeof(void *) == 4, "spans are passed on as they are");

std::int64_t copy_memory(const Device &device, bool write, std::uint64_t offset, const Span *spans,
                         std::uint32_t count) {
  std::uint64_t done = 0;
  for (std::uint32_t i = 0; i < count; ++i) {
    const std::uint64_t at = offset + done;
    if (at > device.bytes || spans[i].bytes > device.bytes - at) break;
    if (write) std::memcpy(device.memory + at, spans[i].data, spans[i].bytes);
    else std::memcpy(spans[i].data, device.memory + at, spans[i].bytes);
    done += spans[i].bytes;
  }
  return static_cast<std::int64_t>(done);
}

std::int64_t file_transfer(const Device &device, bool write, std::uint64_t offset, const Span *spans,
                           std::uint32_t count) {
  iovec vectors[64];
  if (count > 64) count = 64;
  for (std::uint32_t i = 0; i < count; ++i) vectors[i] = iovec{spans[i].data, spans[i].bytes};
  const auto at = static_cast<off_t>(offset);
  const ssize_t done = write ? pwritev(device.fd, vectors, static_cast<int>(count), at)
                             : preadv(device.fd, vectors, static_cast<int>(count), at);
  return done < 0 ? -static_cast<std::int64_t>(errno) : done;
}

std::int64_t once(const Device &device, bool write, std::uint64_t offset, const Span *spans,
                  std::uint32_t count) {
  if (device.kind == KVSIFT_STORE_HOST) return copy_memory(device, write, offset, spans, count);
  if (device.kind == KVSIFT_STORE_FILE) return file_transfer(device, write, offset, spans, count);
  const auto call = write ? device.custom.write : device.custom.read;
  return call(device.custom.context, offset, spans, count);
}

// What a device of the caller's says; no errno is that large.
int error_of(std::int64_t result) { return result < -4095 ? -EIO : static_cast<int>(result); }

}  // namespace

void skip(Span **spans, std::uint32_t *count, std::uint64_t bytes) {
  while (*count > 0 && bytes >= (*spans)->bytes) {
    bytes -= (*spans)->bytes;
    ++*spans;
    --*count;
  }
  if (*count == 0) return;
  (*spans)->data = static_cast<char *>((*spans)->data) + bytes;
  (*spans)->bytes -= bytes;
}

int transfer(const Device &device, bool write, std::uint64_t offset, Span *spans, std::uint32_t count) {
  while (count > 0) {
    std::uint64_t left = 0;
    for (std::uint32_t i = 0; i < count; ++i) left += spans[i].bytes;
    const std::int64_t done = once(device, write, offset, spans, count);
    if (done == -EINTR) continue;
    if (done < 0) return error_of(done);
    if (done == 0) return write ? -EIO : kEndOfDevice;
    // A device that claims more than was asked for cannot be believed about the rest either.
    if (static_cast<std::uint64_t>(done) > left) return -EIO;
    skip(&spans, &count, static_cast<std::uint64_t>(done));
    offset += static_cast<std::uint64_t>(done);
  }
  return 0;
}

int sync(const Device &device) {
  if (device.kind == KVSIFT_STORE_CUSTOM) {
    return device.custom.sync == nullptr ? 0 : error_of(device.custom.sync(device.custom.context));
  }
  if (device.kind == KVSIFT_STORE_FILE && fdatasync(device.fd) != 0) return -errno;
  return 0;
}

const char *errno_text(int error) {
  switch (error) {
    case EIO: return "input/output error";
    case ENOSPC: return "no space left";
    case EDQUOT: return "quota exceeded";
    case EFBIG: return "file too large";
    case ENOENT: return "no such file or directory";
    case EACCES: return "permission denied";
    case EPERM: return "not permitted";
    case EROFS: return "read-only file system";
    case EISDIR: return "is a directory";
    case EWOULDBLOCK: return "in use by another store";
    case EINVAL: return "invalid argument";
    default: return "error";
  }
}

kvsift_status fail_transfer(kvsift_error *error, const Device &device, bool write, std::uint64_t offset,
                            int result) {
  const char *what = write ? ": write at offset " : ": read at offset ";
  if (result == kEndOfDevice) return fail(error, KVSIFT_IO, device.name, what, offset, ": ends early");
  return fail(error, KVSIFT_IO, device.name, what, offset, ": ", errno_text(-result), " (errno ", -result, ")");
}

}  // namespace kvsift

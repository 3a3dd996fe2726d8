// Opening the file of a store. O_DIRECT is asked for by fcntl, so that a file system without it only costs the flag.
#include <cerrno>
#include <climits>
#include <cstring>

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "core/status.h"
#include "store/device.h"

namespace kvsift {
namespace {

kvsift_status fail_file(kvsift_error *error, const Device &device, const char *what, int code) {
  return fail(error, KVSIFT_IO, device.name, ": ", what, ": ", errno_text(code), " (errno ", code, ")");
}

kvsift_status reserve(Device *device, kvsift_error *error) {
  if (ftruncate(device->fd, 0) != 0) return fail_file(error, *device, "emptying", errno);
  const auto bytes = static_cast<off_t>(device->bytes);
  // posix_fallocate would write zeros where the file system cannot reserve; a sparse file is the better answer there.
  if (fallocate(device->fd, 0, 0, bytes) == 0) return KVSIFT_OK;
  if (errno != EOPNOTSUPP) return fail_file(error, *device, "reserving its size", errno);
  return ftruncate(device->fd, bytes) == 0 ? KVSIFT_OK : fail_file(error, *device, "setting its size", errno);
}

kvsift_status check_size(const Device &device, kvsift_error *error) {
  struct stat info;
  if (fstat(device.fd, &info) != 0) return fail_file(error, device, "fstat", errno);
  if (!S_ISREG(info.st_mode)) return fail(error, KVSIFT_INVALID_ARGUMENT, device.name, ": not a regular file");
  return KVSIFT_OK;
}

// A file's name is only durable once its folder is. One that may not be read, or is of a file system that knows no such thing,
// thing, has to do as it is.
kvsift_status sync_folder(const Device &device, kvsift_error *error) {
  char folder[PATH_MAX + 1];
  const char *slash = std::strrchr(device.name, '/');
  const std::size_t length = slash == nullptr ? 0 : static_cast<std::size_t>(slash - device.name) + 1;
  std::memcpy(folder, device.name, length);
  std::memcpy(folder + length, ".", 2);
  const int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return KVSIFT_OK;
  const int code = fsync(fd) == 0 ? 0 : errno;
  close(fd);
  return code != EIO ? KVSIFT_OK : fail_file(error, device, "making its name durable", code);
}

// A killed process's io_uring holds the file until the kernel has wound it up: worth a moment's patience.
int lock(int fd) {
  for (int attempt = 0;; ++attempt) {
    if (flock(fd, LOCK_EX | LOCK_NB) == 0) return 0;
    if (errno != EWOULDBLOCK || attempt == 50) return errno;
    const timespec pause = {0, 10000000};
    nanosleep(&pause, nullptr);
  }
}

}  // namespace

kvsift_status open_file(Device *device, bool create, bool direct, kvsift_error *error) {
  device->fd = open(device->name, O_RDWR | O_CLOEXEC | (create ? O_CREAT : 0), 0600);
  if (device->fd < 0) return fail_file(error, *device, "open", errno);
  kvsift_status status = check_size(*device, error);
  const int locked = status == KVSIFT_OK ? lock(device->fd) : 0;
  if (locked != 0) status = fail_file(error, *device, "lock", locked);
  if (status == KVSIFT_OK && create) status = reserve(device, error);
  if (status == KVSIFT_OK && create) status = sync_folder(*device, error);
  if (status != KVSIFT_OK) {
    close_file(device);
    return status;
  }
#ifdef O_DIRECT
  device->direct = direct && fcntl(device->fd, F_SETFL, O_DIRECT) == 0;
#else
  device->direct = 0;
#endif
  return KVSIFT_OK;
}

kvsift_status restore_size(const Device &device, kvsift_error *error) {
  struct stat info;
  if (fstat(device.fd, &info) != 0) return fail_file(error, device, "fstat", errno);
  if (static_cast<std::uint64_t>(info.st_size) >= device.bytes) return KVSIFT_OK;
  if (ftruncate(device.fd, static_cast<off_t>(device.bytes)) == 0) return KVSIFT_OK;
  return fail_file(error, device, "setting its size", errno);
}

void close_file(Device *device) {
  if (device->fd >= 0) close(device->fd);
  device->fd = -1;
}

}  // namespace kvsift

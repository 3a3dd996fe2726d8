#include "file.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static bool map_open_file(mapped_file *file, int descriptor, const char *path, failure *why) {
  struct stat status;
  if (fstat(descriptor, &status) != 0) return fail(why, "%s: %s", path, strerror(errno));
  if (!S_ISREG(status.st_mode)) return fail(why, "%s: not a regular file", path);
  if (status.st_size == 0) return fail(why, "%s: the file is empty", path);
  void *bytes = mmap(NULL, (size_t)status.st_size, PROT_READ, MAP_PRIVATE, descriptor, 0);
  if (bytes == MAP_FAILED) return fail(why, "%s: cannot be mapped: %s", path, strerror(errno));
  file->bytes = bytes;
  file->size = (uint64_t)status.st_size;
  return true;
}

bool file_map(mapped_file *file, const char *path, failure *why) {
  memset(file, 0, sizeof *file);
  int descriptor = open(path, O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) return fail(why, "%s: %s", path, strerror(errno));
  bool mapped = map_open_file(file, descriptor, path, why);
  close(descriptor);
  return mapped;
}

bool file_claim(const char *path, failure *why) {
  int descriptor = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (descriptor < 0 && errno == EEXIST)
    return fail(why, "%s is there already; expected the path of a new file", path);
  if (descriptor < 0) return fail(why, "%s: %s", path, strerror(errno));
  close(descriptor);
  return true;
}

void file_unmap(mapped_file *file) {
  if (file->bytes != NULL) munmap((void *)(uintptr_t)file->bytes, file->size);
  memset(file, 0, sizeof *file);
}

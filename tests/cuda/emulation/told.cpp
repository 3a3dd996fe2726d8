// What -fsanitize=thread has the compiler call, in place of the sanitizer's own library.
#include "emulation/races.h"

using emulator::races::access;

#define TELL(name, bytes, writes, is_volatile) \
  void __tsan_##name(void *p);                 \
  void __tsan_##name(void *p) { access(p, bytes, writes, is_volatile, __builtin_return_address(0)); }
#define TELL_BOTH(bytes)                              \
  TELL(read##bytes, bytes, false, false)              \
  TELL(write##bytes, bytes, true, false)              \
  TELL(unaligned_read##bytes, bytes, false, false)    \
  TELL(unaligned_write##bytes, bytes, true, false)    \
  TELL(volatile_read##bytes, bytes, false, true)      \
  TELL(volatile_write##bytes, bytes, true, true)
#define TELL_RANGE(name, writes)                       \
  void __tsan_##name(void *p, unsigned long bytes);    \
  void __tsan_##name(void *p, unsigned long bytes) { access(p, bytes, writes, false, __builtin_return_address(0)); }
#define IGNORE(name, ...)           \
  void __tsan_##name(__VA_ARGS__);  \
  void __tsan_##name(__VA_ARGS__) {}

extern "C" {
TELL_BOTH(1)
TELL_BOTH(2)
TELL_BOTH(4)
TELL_BOTH(8)
TELL_BOTH(16)
TELL_RANGE(read_range, false)
TELL_RANGE(write_range, true)
IGNORE(init)
IGNORE(func_entry, void *)
IGNORE(func_exit)
}

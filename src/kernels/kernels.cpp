#include "kernels/kernels.h"

#include <atomic>
#include <cstdlib>
#include <cstring>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace kvsift {

extern const Kernels kernels_scalar, kernels_avx2, kernels_avx512, kernels_neon;

const Kernels *kernels(Level level) {
  switch (level) {
    case Level::scalar: return &kernels_scalar;
#if defined(__x86_64__)
    case Level::avx2: return &kernels_avx2;
    case Level::avx512: return &kernels_avx512;
#elif defined(__aarch64__)
    case Level::neon: return &kernels_neon;
#endif
    default: return nullptr;
  }
}

const char *level_name(Level level) {
  switch (level) {
    case Level::scalar: return "scalar";
    case Level::avx2: return "avx2";
    case Level::avx512: return "avx512";
    case Level::neon: return "neon";
  }
  return nullptr;
}

#if defined(__x86_64__)
namespace {

constexpr unsigned bit(unsigned n) { return 1u << n; }

// Which register states the operating system saves.
unsigned saved_state() {
  unsigned low, high;
  __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return low;
}

enum : unsigned { kAsked = 1, kHasAvx2 = 2, kHasAvx512 = 4, kHasVnni = 8 };

unsigned ask_machine() {
  constexpr unsigned kFma = bit(12), kOsxsave = bit(27), kAvx = bit(28), kF16c = bit(29);
  constexpr unsigned kAvx2 = bit(5), kAvx512 = bit(16) | bit(17) | bit(30) | bit(31);  // F DQ BW VL
  constexpr unsigned kVnni = bit(11), kYmm = 0x6, kZmm = 0xe6;
  unsigned a, b, c, d;
  if (__get_cpuid(1, &a, &b, &c, &d) == 0) return kAsked;
  const unsigned needed = kFma | kOsxsave | kAvx | kF16c;
  if ((c & needed) != needed || __get_cpuid_count(7, 0, &a, &b, &c, &d) == 0) return kAsked;
  const unsigned state = saved_state();
  if ((b & kAvx2) == 0 || (state & kYmm) != kYmm) return kAsked;
  if ((b & kAvx512) != kAvx512 || (state & kZmm) != kZmm) return kAsked | kHasAvx2;
  return kAsked | kHasAvx2 | kHasAvx512 | ((c & kVnni) != 0 ? kHasVnni : 0u);
}

// Asked once: in a virtual machine CPUID takes tens of microseconds, and calls without a handle have nowhere else to keep it.
unsigned machine() {
  static std::atomic<unsigned> answer{0};
  unsigned bits = answer.load(std::memory_order_relaxed);
  if (bits == 0) answer.store(bits = ask_machine(), std::memory_order_relaxed);
  return bits;
}

}  // namespace

bool machine_has(Level level) {
  if (level == Level::scalar) return true;
  const unsigned bits = machine();
  return (level == Level::avx2 && (bits & kHasAvx2) != 0) || (level == Level::avx512 && (bits & kHasAvx512) != 0);
}

bool machine_multiplies_int8(Level level) { return level == Level::avx512 && (machine() & kHasVnni) != 0; }
#else
bool machine_multiplies_int8(Level) { return false; }

bool machine_has(Level level) {
#if defined(__aarch64__)
  if (level == Level::neon) return true;
#endif
  return level == Level::scalar;
}
#endif

Level best_level() {
  Level best = Level::scalar;
  const char *wanted = std::getenv("KVSIFT_CPU");
  for (std::uint32_t i = 0; i < kLevels; ++i) {
    const Level level = static_cast<Level>(i);
    if (kernels(level) == nullptr || !machine_has(level)) continue;
    if (wanted != nullptr && std::strcmp(wanted, level_name(level)) == 0) return level;
    best = level;
  }
  return best;
}

}  // namespace kvsift

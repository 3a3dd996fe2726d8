// Stacks to switch between.
#pragma once

#include <cstddef>

namespace emulator {

constexpr std::size_t kStackBytes = 128 * 1024;

struct Fiber {
  void *stack;    // what it runs on; kept for the next one
  void *context;  // where it stands while it waits
};

// `entry` starts at the first switch to the fiber and must end in a switch away from it that is never returned from.
void start(Fiber *fiber, void (*entry)());
// From one to the other.
void switch_fibers(Fiber *from, Fiber *to);

}  // namespace emulator

// A small SIMT machine: one fiber for each thread of a block, blocks one after another, barriers that yield. A barrier that
// some threads never reach, or reach at another line, ends the program with a sentence. KVSIFT_EMULATOR_SHUFFLE=n runs the
// threads of a block in another order at each turn, which brings races to light. Asynchronous copies are done as late as a
// thread's waits allow, shuffled some of them at once.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace emulator {

struct Index {
  unsigned x, y, z;
};

const Index &thread_index();
const Index &block_index();
const Index &block_size();
const Index &grid_size();
char *dynamic_shared();

// Waits for all threads of the block; the sum of their votes.
int sync_threads(const char *file, int line, int vote);

enum class Op { kSync, kIndex, kUp, kDown, kXor, kBallot, kSum, kMax, kMin };

// Waits for the lanes of `mask`, which must all be at the same place, and gives this lane its part of the result.
std::uint64_t warp(Op op, unsigned mask, std::uint64_t value, unsigned argument, unsigned width, const char *file,
                   int line);

// Copies of the running thread, in groups of which all but `left` are done after a wait. None may be left at its end.
void copy_async(void *to, const void *from, std::size_t bytes);
void end_copies();
void wait_copies(unsigned left);

struct WarpSync {
  const char *file;
  int line;
  void operator()(unsigned mask = 0xffffffffu) const { warp(Op::kSync, mask, 0, 0, 32, file, line); }
};

template <class T>
T shuffle(Op op, unsigned mask, T value, const char *file, int line, unsigned argument, unsigned width = 32) {
  static_assert(sizeof(T) <= 8, "");
  std::uint64_t word = 0;
  std::memcpy(&word, &value, sizeof value);
  word = warp(op, mask, word, argument, width, file, line);
  std::memcpy(&value, &word, sizeof value);
  return value;
}

struct Kernel {
  Kernel(const char *name, std::size_t args_bytes, unsigned max_threads, void (*run)(const void *args));
  const char *name;
  std::size_t args_bytes;
  unsigned max_threads;
  void (*run)(const void *args);
  const Kernel *next;
};

// The kernel of that name; null: no such.
const Kernel *find(const char *name);

void launch(const Kernel &kernel, Index grid, Index block, std::size_t dynamic_shared_bytes, const void *args);

}  // namespace emulator

// Finds hazards: two accesses to the same byte, one of them a write, that nothing orders, whichever way this run went. Threads
// of a block are ordered by barriers, lanes of a warp by __syncwarp too (a shuffle orders nothing); blocks by an atomic
// operation between fences; pieces of work by their streams and events. An asynchronous copy is under way from its call to its
// wait, and nothing may touch what it writes meanwhile. Atomic and volatile accesses may meet each other.
//
// The compiler reports the accesses: kernels are built with -fsanitize=thread, whose calls told.cpp answers. Without
// KVSIFT_RACES nothing is looked at, and these cost nothing.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>

namespace emulator {
namespace races {

// How many pieces of each stream's work are done, as far as something has waited for them.
using Clock = std::map<const void *, std::uint64_t>;

#ifdef KVSIFT_RACES

// A piece of work, the `place`th of its stream; `seen` is what is done before it.
void begin_work(const void *stream, std::uint64_t place, const Clock &seen);
// What the work itself, a copy of the driver's, touches.
void work_reads(const void *p, std::size_t bytes);
void work_writes(const void *p, std::size_t bytes);
// Memory that all blocks see, while it is there; what else kernels touch is shared memory.
void know(const void *p, std::size_t bytes);
void forget(const void *p, std::size_t bytes);

void begin_launch(const char *kernel, unsigned threads);
void begin_block(unsigned block);
// What runs from here on. Its own stack is nobody else's business.
void run_thread(unsigned thread, const void *stack, std::size_t stack_bytes);
void run_emulator();
void pass_barrier();
void pass_warp(unsigned first_thread, unsigned mask);
void fence();
// By the running thread, just before `code`.
void access(const void *p, std::size_t bytes, bool writes, bool is_volatile, const void *code);
void begin_copy(const void *to, const void *from, std::size_t bytes);
void end_copy(const void *to, std::size_t bytes);

// What is read and written meanwhile is one atomic operation on `p`.
struct Atomic {
  explicit Atomic(const void *p);
  ~Atomic();
};

#else

inline void begin_work(const void *, std::uint64_t, const Clock &) {}
inline void work_reads(const void *, std::size_t) {}
inline void work_writes(const void *, std::size_t) {}
inline void know(const void *, std::size_t) {}
inline void forget(const void *, std::size_t) {}
inline void begin_launch(const char *, unsigned) {}
inline void begin_block(unsigned) {}
inline void run_thread(unsigned, const void *, std::size_t) {}
inline void run_emulator() {}
inline void pass_barrier() {}
inline void pass_warp(unsigned, unsigned) {}
inline void fence() {}
inline void begin_copy(const void *, const void *, std::size_t) {}
inline void end_copy(const void *, std::size_t) {}
struct Atomic {
  explicit Atomic(const void *) {}
};

#endif

}  // namespace races
}  // namespace emulator

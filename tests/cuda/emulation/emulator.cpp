#include "emulation/emulator.h"

#include <cstdio>
#include <cstdlib>
#include <deque>
#include <vector>

#include "emulation/fiber.h"
#include "emulation/races.h"

// Static shared memory: the linker knows where it begins and ends.
extern char shared_begin[] __asm__("__start_kvsift_shared") __attribute__((weak, visibility("hidden")));
extern char shared_end[] __asm__("__stop_kvsift_shared") __attribute__((weak, visibility("hidden")));

namespace emulator {
namespace {

constexpr unsigned kWarp = 32, kMostThreads = 1024, kMostShared = 227 * 1024;

enum class State { kRuns, kAtBarrier, kInWarp, kDone };

struct Copy {
  void *to;
  const void *from;
  std::size_t bytes;
  unsigned group;
  bool done;
};

struct Thread {
  Fiber fiber;
  State state;
  const char *file;
  int line;
  Op op;
  unsigned mask, argument, width;
  std::uint64_t value;  // given, then received
  std::deque<Copy> copies;
  unsigned groups;  // of copies, that are ended
};

// The machine. One launch at a time.
struct Machine {
  std::vector<Thread> threads;
  std::vector<Index> indices;
  std::vector<unsigned> order;
  std::vector<char> shared;
  Fiber scheduler;
  Index block, block_size, grid;
  unsigned count, current;
  int votes, vote_result;
  std::uint64_t random;
  const Kernel *kernel;
  const void *args;
} machine;

const Kernel *kernels = nullptr;

[[noreturn]] void give_up(const char *what, const Thread &a, const Thread &b) {
  std::fprintf(stderr, "emulator: %s, block (%u, %u, %u): %s\n  thread %u at %s:%d, thread %u at %s:%d\n",
               machine.kernel->name, machine.block.x, machine.block.y, machine.block.z, what,
               static_cast<unsigned>(&a - machine.threads.data()), a.file, a.line,
               static_cast<unsigned>(&b - machine.threads.data()), b.file, b.line);
  std::abort();
}

void wait(State state, const char *file, int line) {
  Thread &own = machine.threads[machine.current];
  own.state = state;
  own.file = file;
  own.line = line;
  switch_fibers(&own.fiber, &machine.scheduler);
}

void thread_main() {
  machine.kernel->run(machine.args);
  const Thread &own = machine.threads[machine.current];
  if (!own.copies.empty()) give_up("a thread ends before its copies", own, own);
  wait(State::kDone, "the end", 0);
}

// All are at the barrier, or the block is done: lets them go on.
bool release_barrier() {
  Thread *first = nullptr;
  unsigned waiting = 0;
  for (unsigned i = 0; i < machine.count; ++i) {
    Thread &t = machine.threads[i];
    if (t.state == State::kAtBarrier) ++waiting;
    if (first == nullptr) first = &t;
    if (t.state != first->state) give_up("a barrier that not all threads reach", *first, t);
    if (t.line != first->line) give_up("threads wait at different barriers", *first, t);
  }
  if (waiting == 0) return false;
  for (unsigned i = 0; i < machine.count; ++i) machine.threads[i].state = State::kRuns;
  races::pass_barrier();
  machine.vote_result = machine.votes;
  machine.votes = 0;
  return true;
}

unsigned source_of(const Thread &t, unsigned lane) {
  const unsigned segment = lane / t.width * t.width;
  unsigned from = lane;
  if (t.op == Op::kIndex) from = segment + t.argument % t.width;
  if (t.op == Op::kXor) from = lane ^ t.argument;
  if (t.op == Op::kUp && lane >= segment + t.argument) from = lane - t.argument;
  if (t.op == Op::kDown && lane + t.argument < segment + t.width) from = lane + t.argument;
  if (t.op == Op::kXor && from >= segment + t.width) from = lane;
  return from;
}

std::uint64_t combine(std::uint64_t a, std::uint64_t b, Op op) {
  if (op == Op::kSum) return static_cast<std::uint32_t>(a + b);
  const auto x = static_cast<std::uint32_t>(a), y = static_cast<std::uint32_t>(b);
  return (op == Op::kMax) == (x > y) ? x : y;
}

// The last lane of a warp operation has come: works it out for all of them.
void finish_warp(Thread *lanes, unsigned mask) {
  std::uint64_t given[kWarp], all = 0;
  const Thread &any = lanes[__builtin_ctz(mask)];
  bool first = true;
  if (any.op == Op::kSync) races::pass_warp(static_cast<unsigned>(lanes - machine.threads.data()), mask);
  for (unsigned i = 0; i < kWarp; ++i) {
    if ((mask >> i & 1) == 0) continue;
    given[i] = lanes[i].value;
    if (any.op == Op::kBallot) {
      all |= given[i] << i;
    } else if (any.op >= Op::kSum) {
      all = first ? given[i] : combine(all, given[i], any.op);
      first = false;
    }
  }
  for (unsigned i = 0; i < kWarp; ++i) {
    if ((mask >> i & 1) == 0) continue;
    Thread &t = lanes[i];
    t.state = State::kRuns;
    if (t.op == Op::kSync) continue;
    if (t.op >= Op::kBallot) {
      t.value = all;
      continue;
    }
    const unsigned from = source_of(t, i);
    if ((mask >> from & 1) == 0) give_up("a shuffle from a lane outside its mask", t, lanes[from]);
    t.value = given[from];
  }
}

unsigned random_below(unsigned n) {
  machine.random = machine.random * 6364136223846793005ull + 1442695040888963407ull;
  return static_cast<unsigned>(machine.random >> 33) % n;
}

void shuffle_order() {
  for (unsigned i = machine.count; i > 1; --i) {
    const unsigned j = random_below(i), k = machine.order[i - 1];
    machine.order[i - 1] = machine.order[j];
    machine.order[j] = k;
  }
}

void run_block() {
  const unsigned number = (machine.block.z * machine.grid.y + machine.block.y) * machine.grid.x + machine.block.x;
  races::begin_block(number);
  for (unsigned i = 0; i < machine.count; ++i) {
    start(&machine.threads[i].fiber, thread_main);
    machine.threads[i].state = State::kRuns;
    machine.threads[i].groups = 0;
  }
  // What a block finds in shared memory is NaN.
  std::memset(machine.shared.data(), 0xff, machine.shared.size());
  std::memset(shared_begin, 0xff, static_cast<std::size_t>(shared_end - shared_begin));
  for (;;) {
    bool ran = false, in_warp = false;
    if (machine.random != 0) shuffle_order();
    for (unsigned n = 0; n < machine.count; ++n) {
      machine.current = machine.order[n];
      Thread &t = machine.threads[machine.current];
      while (t.state == State::kRuns) {
        ran = true;
        races::run_thread(machine.current, t.fiber.stack, kStackBytes);
        switch_fibers(&machine.scheduler, &t.fiber);
        races::run_emulator();
      }
      in_warp = in_warp || t.state == State::kInWarp;
    }
    if (ran) continue;
    if (in_warp) {
      for (unsigned i = 0; i < machine.count; ++i) {
        if (machine.threads[i].state == State::kInWarp) {
          give_up("a warp operation that not all lanes of its mask reach", machine.threads[i], machine.threads[i]);
        }
      }
    }
    if (!release_barrier()) return;
  }
}

}  // namespace

const Index &thread_index() { return machine.indices[machine.current]; }
const Index &block_index() { return machine.block; }
const Index &block_size() { return machine.block_size; }
const Index &grid_size() { return machine.grid; }
char *dynamic_shared() { return machine.shared.data(); }

int sync_threads(const char *file, int line, int vote) {
  machine.votes += vote;
  wait(State::kAtBarrier, file, line);
  return machine.vote_result;
}

void copy_async(void *to, const void *from, std::size_t bytes) {
  Thread &own = machine.threads[machine.current];
  races::begin_copy(to, from, bytes);
  const bool at_once = machine.random != 0 && random_below(2) == 0;
  if (at_once) std::memcpy(to, from, bytes);
  own.copies.push_back(Copy{to, from, bytes, own.groups, at_once});
}

void end_copies() { ++machine.threads[machine.current].groups; }

void wait_copies(unsigned left) {
  Thread &own = machine.threads[machine.current];
  while (!own.copies.empty() && own.copies.front().group + left < own.groups) {
    const Copy &copy = own.copies.front();
    if (!copy.done) std::memcpy(copy.to, copy.from, copy.bytes);
    races::end_copy(copy.to, copy.bytes);
    own.copies.pop_front();
  }
}

std::uint64_t warp(Op op, unsigned mask, std::uint64_t value, unsigned argument, unsigned width, const char *file,
                   int line) {
  const unsigned lane = machine.current % kWarp;
  Thread &own = machine.threads[machine.current];
  Thread *lanes = &own - lane;
  own.op = op;
  own.mask = mask;
  own.value = value;
  own.argument = argument;
  own.width = width;
  own.file = file;
  own.line = line;
  if ((mask >> lane & 1) == 0) give_up("a lane outside the mask it names", own, own);
  own.state = State::kInWarp;
  bool complete = true;
  for (unsigned i = 0; i < kWarp; ++i) {
    if ((mask >> i & 1) == 0) continue;
    const Thread &other = lanes[i];
    if (&other >= machine.threads.data() + machine.count) give_up("a mask beyond the block", own, own);
    complete = complete && other.state == State::kInWarp;
    if (other.state == State::kInWarp && (other.mask != mask || other.op != op || other.line != line)) {
      give_up("lanes of one mask meet at different operations", own, other);
    }
  }
  if (complete) {
    finish_warp(lanes, mask);
  } else {
    switch_fibers(&own.fiber, &machine.scheduler);
  }
  return own.value;
}

Kernel::Kernel(const char *n, std::size_t bytes, unsigned most, void (*r)(const void *))
    : name(n), args_bytes(bytes), max_threads(most), run(r), next(kernels) {
  kernels = this;
}

const Kernel *find(const char *name) {
  const Kernel *k = kernels;
  while (k != nullptr && std::strcmp(k->name, name) != 0) k = k->next;
  return k;
}

void launch(const Kernel &kernel, Index grid, Index block, std::size_t dynamic_shared_bytes, const void *args) {
  machine.kernel = &kernel;
  machine.args = args;
  machine.grid = grid;
  machine.block_size = block;
  machine.count = block.x * block.y * block.z;
  machine.votes = 0;
  races::begin_launch(kernel.name, machine.count);
  if (machine.count == 0 || machine.count > kernel.max_threads || machine.count > kMostThreads ||
      dynamic_shared_bytes > kMostShared) {
    std::fprintf(stderr, "emulator: %s launched with %u threads and %zu bytes of shared memory\n", kernel.name,
                 machine.count, dynamic_shared_bytes);
    std::abort();
  }
  if (machine.threads.size() < kMostThreads + kWarp) machine.threads.resize(kMostThreads + kWarp);
  machine.indices.resize(machine.count);
  machine.order.resize(machine.count);
  machine.shared.resize(dynamic_shared_bytes);
  const char *shuffle = std::getenv("KVSIFT_EMULATOR_SHUFFLE");
  machine.random = shuffle == nullptr ? 0 : std::strtoull(shuffle, nullptr, 10);
  for (unsigned i = 0; i < machine.count; ++i) {
    machine.indices[i] = Index{i % block.x, i / block.x % block.y, i / block.x / block.y};
    machine.order[i] = i;
  }
  for (unsigned z = 0; z < grid.z; ++z)
    for (unsigned y = 0; y < grid.y; ++y)
      for (unsigned x = 0; x < grid.x; ++x) {
        machine.block = Index{x, y, z};
        run_block();
      }
}

}  // namespace emulator

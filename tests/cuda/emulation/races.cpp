#include "emulation/races.h"

#include <dlfcn.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <set>
#include <unordered_map>
#include <vector>

#include "emulation/cells.h"

namespace emulator {
namespace races {
namespace {

constexpr unsigned kWarp = 32, kNoThread = 0xffffffffu;

// Where in its launch a stretch was.
struct Origin {
  std::uint32_t block, barrier, turn;  // turn: of its warp
  std::uint32_t thread;
};

// A piece of a stream's work, and its first stretch.
struct Piece {
  const void *stream;
  std::uint64_t place;
  Stretch first;
  const char *kernel;  // the last of it
};

struct Thread {
  Stretch stretch;  // 0: not numbered yet
  std::uint32_t turn;
};

struct State {
  Cells cells;
  std::map<std::uintptr_t, std::uintptr_t> global;  // where memory ends and begins that all blocks see
  std::uintptr_t last_begin = 0, last_bytes = 0;    // of it
  std::vector<Piece> pieces;  // in the order in which they ran; the last one runs
  Clock seen;
  Stretch next = 1, unordered_from = 1;  // stretches below are done before the running piece of work

  std::set<std::uint64_t> told;
  const char *kernel = "a copy";
  Stretch launch_first = 1;
  std::vector<Origin> origins;  // of the launch's stretches
  std::vector<Thread> threads;
  std::uint32_t block = 0, barrier = 0, next_turn = 0;
  unsigned thread = kNoThread;
  const char *stack = nullptr;
  std::size_t stack_bytes = 0;

  bool atomic = false, unfenced = false;
  std::vector<Stretch> before;  // up to where each block is done before what this one does now; 0: not
  std::unordered_map<const void *, std::vector<Stretch>> released;  // the same, by atomic operations
};
State &state = *new State;

bool is_global(const void *p) {
  const auto at = reinterpret_cast<std::uintptr_t>(p);
  if (at - state.last_begin < state.last_bytes) return true;
  const auto memory = state.global.upper_bound(at);
  if (memory == state.global.end() || memory->second > at) return false;
  state.last_begin = memory->second;
  state.last_bytes = memory->first - memory->second;
  return true;
}

std::uintptr_t base_of_library() {
  static const std::uintptr_t base = [] {
    Dl_info info;
    return dladdr(reinterpret_cast<const void *>(&begin_launch), &info) != 0 ? reinterpret_cast<std::uintptr_t>(info.dli_fbase) : 0;
  }();
  return base;
}

std::uint32_t place_of(const void *code) {
  return static_cast<std::uint32_t>(reinterpret_cast<std::uintptr_t>(code) - base_of_library()) & kPlace;
}

Stretch own_stretch() {
  Thread &own = state.threads[state.thread];
  if (own.stretch == 0) {
    own.stretch = state.next++;
    state.origins.push_back(Origin{state.block, state.barrier, own.turn, state.thread});
  }
  return own.stretch;
}

const Origin *origin_of(Stretch stretch) {
  return stretch >= state.launch_first && stretch - state.launch_first < state.origins.size() ? &state.origins[stretch - state.launch_first]
                                                                                              : nullptr;
}

bool is_done_before(const Piece &piece) {
  const Piece &own = state.pieces.back();
  if (piece.stream == own.stream) return true;
  const auto known = state.seen.find(piece.stream);
  return known != state.seen.end() && piece.place <= known->second;
}

const Piece &piece_of(Stretch stretch) {
  std::size_t low = 0, high = state.pieces.size();
  while (high - low > 1) {
    const std::size_t middle = (low + high) / 2;
    (state.pieces[middle].first <= stretch ? low : high) = middle;
  }
  return state.pieces[low];
}

// Whether all that happened in the stretch is over before what the running thread does now.
bool is_over(Access past, bool shared) {
  const Origin *origin = origin_of(past.stretch);
  if (shared && (origin == nullptr || origin->block != state.block)) return true;  // it is each block's own
  if (origin == nullptr) return is_done_before(piece_of(past.stretch));
  if (origin->block != state.block) return origin->block < state.before.size() && past.stretch <= state.before[origin->block];
  if (origin->barrier != state.barrier) return true;
  if (origin->turn != state.threads[state.thread].turn) return origin->thread / kWarp == state.thread / kWarp;
  return origin->thread == state.thread && (past.where & kManyLanes) == 0;
}

void describe(const char *verb, Access access) {
  const Origin *origin = origin_of(access.stretch);
  const char *pending = (access.where & kPending) != 0 ? ", a copy under way," : "";
  if (origin == nullptr) {
    const Piece &piece = piece_of(access.stretch);
    std::fprintf(stderr, "  %s by piece %llu of stream %p, %s, at:\n", verb, static_cast<unsigned long long>(piece.place), piece.stream,
                 piece.kernel);
  } else {
    std::fprintf(stderr, "  %s%s by thread %u of block %u at:\n", verb, pending, origin->thread, origin->block);
  }
  Dl_info info;
  if ((access.where & kPlace) == 0 || dladdr(reinterpret_cast<const void *>(&begin_launch), &info) == 0) return;
  // The address is where the call returns to: the access is before it.
  char command[4096];
  std::snprintf(command, sizeof command, "addr2line -Cfpsi -e '%s' 0x%x >&2", info.dli_fname, (access.where & kPlace) - 1);
  std::fflush(stderr);
  if (std::system(command) != 0) std::fprintf(stderr, "    %s+0x%x\n", info.dli_fname, access.where & kPlace);
}

// Each pair of places once. The program goes on, and fails at its end.
void tell(std::uintptr_t at, const char *past, Access before, const char *now, Access own) {
  const std::uint64_t pair = std::uint64_t{before.where & kPlace} << 32 | (own.where & kPlace);
  if (!state.told.insert(pair).second) return;
  if (state.told.size() == 1) std::atexit([] { std::_Exit(1); });
  std::fprintf(stderr, "emulator: %s (piece %llu of stream %p): nothing orders two accesses to 0x%llx\n", state.kernel,
               static_cast<unsigned long long>(state.pieces.back().place), state.pieces.back().stream,
               static_cast<unsigned long long>(at));
  describe(past, before);
  describe(now, own);
}

inline bool is_harmless(Access past, Access own, bool shared) {
  if (past.stretch < state.unordered_from) return true;
  if ((past.where & own.where & kAtomic) != 0) return true;
  if ((past.where & kPending) != 0) return false;
  return is_over(past, shared);
}

void note_read(Cell *cell, Access own) {
  Access &last = cell->reads[0];
  const Origin *was = origin_of(last.stretch), *is = origin_of(own.stretch);
  const bool same_warp = was != nullptr && is != nullptr && was->block == is->block && was->barrier == is->barrier &&
                         was->turn == is->turn && was->thread / kWarp == is->thread / kWarp;
  if (same_warp) {
    own.where |= was->thread != is->thread ? kManyLanes : last.where & kManyLanes;
  } else {
    cell->reads[1] = last;
  }
  last = own;
}

void read_cell(std::uintptr_t at, Cell *cell, Access own, bool shared) {
  // Whoever came in between was told of it then.
  if (cell->reads[0].stretch == own.stretch && ((cell->reads[0].where ^ own.where) & kAtomic) == 0) return;
  if (!is_harmless(cell->write, own, shared)) tell(at, "written", cell->write, "read", own);
  note_read(cell, own);
}

void write_cell(std::uintptr_t at, Cell *cell, Access own, bool shared) {
  if (cell->write.stretch == own.stretch && ((cell->write.where ^ own.where) & (kAtomic | kPending)) == 0) return;
  if (!is_harmless(cell->write, own, shared)) tell(at, "written", cell->write, "written", own);
  for (const Access &read : cell->reads) {
    if (!is_harmless(read, own, shared)) tell(at, "read", read, "written", own);
  }
  cell->write = own;
}

void access_at(const void *p, std::size_t bytes, bool writes, std::uint32_t where) {
  const auto begin = reinterpret_cast<std::uintptr_t>(p);
  if (state.thread == kNoThread || (begin - reinterpret_cast<std::uintptr_t>(state.stack) < state.stack_bytes)) return;
  const Access own{own_stretch(), where | (state.atomic ? kAtomic : 0)};
  const bool shared = !is_global(p);
  if (writes && !shared && !state.atomic) state.unfenced = true;
  if (writes) {
    state.cells.each(begin, bytes, [&](std::uintptr_t at, Cell *cell) { write_cell(at, cell, own, shared); });
  } else {
    state.cells.each(begin, bytes, [&](std::uintptr_t at, Cell *cell) { read_cell(at, cell, own, shared); });
  }
}

void pass_all_threads() {
  ++state.barrier;
  for (Thread &t : state.threads) t = Thread{0, 0};
}

// The copies of the driver are a thread and a launch of their own.
void access_as_work(const void *p, std::size_t bytes, bool writes) {
  begin_launch("a copy", 1);
  begin_block(0);
  run_thread(0, nullptr, 0);
  access_at(p, bytes, writes, 0);
  run_emulator();
}

}  // namespace

void begin_work(const void *stream, std::uint64_t place, const Clock &seen) {
  // A piece that has touched nothing makes room.
  if (!state.pieces.empty() && state.pieces.back().first == state.next) state.pieces.pop_back();
  state.pieces.push_back(Piece{stream, place, state.next, ""});
  state.seen = seen;
  std::size_t known = 0;
  while (is_done_before(state.pieces[known]) && known + 1 < state.pieces.size()) ++known;
  state.unordered_from = state.pieces[known].first;
}

void work_reads(const void *p, std::size_t bytes) { access_as_work(p, bytes, false); }
void work_writes(const void *p, std::size_t bytes) { access_as_work(p, bytes, true); }

void know(const void *p, std::size_t bytes) {
  const auto begin = reinterpret_cast<std::uintptr_t>(p);
  state.global[begin + bytes] = begin;
}

void forget(const void *p, std::size_t bytes) {
  const auto begin = reinterpret_cast<std::uintptr_t>(p);
  state.global.erase(begin + bytes);
  state.last_bytes = 0;
  state.cells.forget(begin, bytes);
}

void begin_launch(const char *kernel, unsigned threads) {
  state.kernel = state.pieces.back().kernel = kernel;
  state.launch_first = state.next;
  state.origins.clear();
  state.released.clear();
  state.threads.assign(threads, Thread{0, 0});
}

void begin_block(unsigned block) {
  state.block = block;
  state.before.clear();
  state.unfenced = false;
  pass_all_threads();
}

void run_thread(unsigned thread, const void *stack, std::size_t stack_bytes) {
  state.thread = thread;
  state.stack = static_cast<const char *>(stack);
  state.stack_bytes = stack_bytes;
}

void run_emulator() { state.thread = kNoThread; }

void pass_barrier() { pass_all_threads(); }

void pass_warp(unsigned first_thread, unsigned mask) {
  const std::uint32_t turn = ++state.next_turn;
  for (unsigned lane = 0; lane < kWarp; ++lane) {
    if ((mask >> lane & 1) != 0) state.threads[first_thread + lane] = Thread{0, turn};
  }
}

void fence() { state.unfenced = false; }

void access(const void *p, std::size_t bytes, bool writes, bool is_volatile, const void *code) {
  state.atomic = state.atomic || is_volatile;
  access_at(p, bytes, writes, place_of(code));
  if (is_volatile) state.atomic = false;
}

void begin_copy(const void *to, const void *from, std::size_t bytes) {
  const std::uint32_t where = place_of(__builtin_return_address(0));
  access_at(from, bytes, false, where);
  access_at(to, bytes, true, where | kPending);
}

void end_copy(const void *to, std::size_t bytes) {
  state.cells.each(reinterpret_cast<std::uintptr_t>(to), bytes, [](std::uintptr_t, Cell *cell) { cell->write.where &= ~kPending; });
  access_at(to, bytes, true, place_of(__builtin_return_address(0)));
}

void keep_later(std::vector<Stretch> *of, const std::vector<Stretch> &other) {
  if (of->size() < other.size()) of->resize(other.size());
  for (std::size_t i = 0; i < other.size(); ++i) {
    if ((*of)[i] < other[i]) (*of)[i] = other[i];
  }
}

// What came before the operation, if fenced, is done before what comes after later ones.
Atomic::Atomic(const void *p) {
  state.atomic = true;
  if (!is_global(p)) return;
  std::vector<Stretch> &released = state.released[p];
  keep_later(&state.before, released);
  if (state.unfenced) return;
  keep_later(&released, state.before);
  if (released.size() <= state.block) released.resize(state.block + 1);
  released[state.block] = own_stretch();
}
Atomic::~Atomic() { state.atomic = false; }

}  // namespace races
}  // namespace emulator

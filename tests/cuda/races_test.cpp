// The emulator's search for hazards (emulation/races.h): each that hazards.cpp can have is told of, and nothing else is.
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>

#include "emulation/emulator.h"
#include "emulation/hazards.h"
#include "emulation/races.h"

#include <setjmp.h>
#include <stdarg.h>
extern "C" {
#include <cmocka.h>
}

namespace races = emulator::races;

namespace {

constexpr std::size_t kWords = 1024;
const char kStream = 0, kOther = 0;

std::uint32_t *new_memory() {
  auto *memory = static_cast<std::uint32_t *>(std::aligned_alloc(64, kWords * sizeof(std::uint32_t)));
  std::memset(memory, 0, kWords * sizeof *memory);
  races::know(memory, kWords * sizeof *memory);
  return memory;
}

void run(const char *kernel, std::uint32_t broken, std::uint32_t *memory, unsigned blocks) {
  const HazardArgs args{broken, memory + 512, memory, memory + 1000};
  emulator::launch(*emulator::find(kernel), {blocks, 1, 1}, {64, 1, 1}, 0, &args);
}

// Whether a program that does this is told of a hazard. What it is told is shown where that was not to be.
template <class Work>
bool is_told(bool to_be, Work work) {
  std::fflush(nullptr);
  const pid_t child = fork();
  if (child == 0) {
    if (to_be && std::freopen("/dev/null", "w", stderr) == nullptr) std::_Exit(2);
    work();
    std::exit(0);
  }
  int status = 0;
  assert_int_equal(waitpid(child, &status, 0), child);
  assert_true(WIFEXITED(status) && WEXITSTATUS(status) < 2);
  return WEXITSTATUS(status) == 1;
}

void hazards_are_told(void **) {
  const struct {
    const char *name;
    unsigned blocks;
  } kernels[] = {{"kvsift_hazard_barrier", 1}, {"kvsift_hazard_warp", 1},           {"kvsift_hazard_reuse", 1},
                 {"kvsift_hazard_copy", 1},    {"kvsift_hazard_copy_of_others", 1}, {"kvsift_hazard_blocks", 2},
                 {"kvsift_hazard_last", 2},    {"kvsift_hazard_alike", 2},          {"kvsift_hazard_atomic", 2}};
  for (const auto &kernel : kernels) {
    for (std::uint32_t broken = 0; broken < 2; ++broken) {
      const bool told = is_told(broken != 0, [=] {
        races::begin_work(&kStream, 1, {});
        run(kernel.name, broken, new_memory(), kernel.blocks);
      });
      if (told != (broken != 0)) print_error("%s, broken %u\n", kernel.name, broken);
      assert_true(told == (broken != 0));
    }
  }
}

// A stream's work in order, and what another one's has to wait for.
void streams_are_apart(void **) {
  for (int waits = 0; waits < 2; ++waits) {
    const bool told = is_told(waits == 0, [=] {
      std::uint32_t *memory = new_memory();
      races::begin_work(&kStream, 1, {});
      run("kvsift_hazard_barrier", 0, memory, 1);
      races::begin_work(&kStream, 2, {{&kStream, 1}});
      run("kvsift_hazard_reader", 0, memory, 1);
      const std::uint64_t waited_for = waits != 0 ? 2 : 1;
      races::begin_work(&kOther, 1, {{&kStream, waited_for}});
      run("kvsift_hazard_barrier", 0, memory, 1);
      races::begin_work(&kOther, 2, {{&kStream, waited_for}, {&kOther, 1}});
      run("kvsift_hazard_barrier", 0, memory, 1);
    });
    assert_true(told == (waits == 0));
  }
}

}  // namespace

int main() {
  const CMUnitTest tests[] = {cmocka_unit_test(hazards_are_told), cmocka_unit_test(streams_are_apart)};
  return cmocka_run_group_tests(tests, nullptr, nullptr);
}

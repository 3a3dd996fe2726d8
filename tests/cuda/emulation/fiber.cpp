#include "emulation/fiber.h"

#include <sys/mman.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>

#ifndef __x86_64__
#include <ucontext.h>
#endif

namespace emulator {
namespace {

constexpr std::size_t kGuard = 4096;

void *new_stack() {
  void *memory = mmap(nullptr, kStackBytes + kGuard, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED || mprotect(memory, kGuard, PROT_NONE) != 0) {
    std::fputs("emulator: no memory for a stack\n", stderr);
    std::abort();
  }
  return static_cast<char *>(memory) + kGuard;
}

}  // namespace

#ifdef __x86_64__

extern "C" void kvsift_switch_stacks(void **from, void *to);
__asm__(
    ".text\n"
    ".type kvsift_switch_stacks, @function\n"
    "kvsift_switch_stacks:\n"
    "  push %rbp\n  push %rbx\n  push %r12\n  push %r13\n  push %r14\n  push %r15\n"
    "  mov %rsp, (%rdi)\n"
    "  mov %rsi, %rsp\n"
    "  pop %r15\n  pop %r14\n  pop %r13\n  pop %r12\n  pop %rbx\n  pop %rbp\n"
    "  ret\n"
    ".size kvsift_switch_stacks, . - kvsift_switch_stacks\n");

void start(Fiber *fiber, void (*entry)()) {
  if (fiber->stack == nullptr) fiber->stack = new_stack();
  auto *top = reinterpret_cast<std::uint64_t *>(static_cast<char *>(fiber->stack) + kStackBytes);
  *--top = 0;  // where `entry` would return to, and its stack's alignment
  *--top = reinterpret_cast<std::uint64_t>(entry);
  for (int i = 0; i < 6; ++i) *--top = 0;
  fiber->context = top;
}

void switch_fibers(Fiber *from, Fiber *to) { kvsift_switch_stacks(&from->context, to->context); }

#else

void start(Fiber *fiber, void (*entry)()) {
  if (fiber->stack == nullptr) fiber->stack = new_stack();
  if (fiber->context == nullptr) fiber->context = std::calloc(1, sizeof(ucontext_t));
  auto *context = static_cast<ucontext_t *>(fiber->context);
  getcontext(context);
  context->uc_stack.ss_sp = fiber->stack;
  context->uc_stack.ss_size = kStackBytes;
  makecontext(context, entry, 0);
}

void switch_fibers(Fiber *from, Fiber *to) {
  if (from->context == nullptr) from->context = std::calloc(1, sizeof(ucontext_t));
  swapcontext(static_cast<ucontext_t *>(from->context), static_cast<ucontext_t *>(to->context));
}

#endif

}  // namespace emulator

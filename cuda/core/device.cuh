// What every kernel uses: element loads, dot products in the order of the CPU's, exp and log with its bits.
//
// A kernel is written KVSIFT_KERNEL(name, Args, threads) { ... args ... }: one plain struct by value, at most `threads`
// threads a block, found by the host as kvsift_<name>. The tests build the same source for the host (KVSIFT_EMULATED).
#pragma once

#include <cstddef>
#include <cstdint>

#ifndef KVSIFT_EMULATED
#include <cuda_fp16.h>
#endif

#include "core/half.h"
#include "kernels/element.h"
#include "kernels/exp.h"
#include "kvsift/kvsift.h"

#ifdef KVSIFT_EMULATED
#define KVSIFT_KERNEL(name, Args, threads)                                                                   \
  static void kvsift_##name(const Args args);                                                                \
  static const emulator::Kernel emulated_##name("kvsift_" #name, sizeof(Args), threads, [](const void *p) {  \
    kvsift_##name(*static_cast<const Args *>(p));                                                            \
  });                                                                                                        \
  static void kvsift_##name(const Args args)
#define KVSIFT_KERNEL_RESIDENT(name, Args, threads, blocks) KVSIFT_KERNEL(name, Args, threads)
#define KVSIFT_DYNAMIC_SHARED(name) char *name = emulator::dynamic_shared()
#else
#define KVSIFT_KERNEL_BOUNDED(name, Args, ...)                                                                 \
  static __device__ void body_of_##name(const Args &args);                                                     \
  extern "C" __global__ void __launch_bounds__(__VA_ARGS__) kvsift_##name(const __grid_constant__ Args args) { \
    kvsift::begin_kernel(args);                                                                                \
    body_of_##name(args);                                                                                      \
  }                                                                                                            \
  static __device__ __forceinline__ void body_of_##name(const Args &args)
#define KVSIFT_KERNEL(name, Args, threads) KVSIFT_KERNEL_BOUNDED(name, Args, threads)
// With so many blocks on a multiprocessor at least: what registers a thread may have.
#define KVSIFT_KERNEL_RESIDENT(name, Args, threads, blocks) KVSIFT_KERNEL_BOUNDED(name, Args, threads, blocks)
#define KVSIFT_DYNAMIC_SHARED(name)             \
  extern __shared__ uint4 kvsift_shared_pool[]; \
  char *name = reinterpret_cast<char *>(kvsift_shared_pool)
#endif

namespace kvsift {
namespace {

constexpr unsigned kWarpThreads = 32, kAllLanes = 0xffffffffu;

#ifndef KVSIFT_EMULATED
// Brings the arguments, which lie in constant memory, near: all at once rather than where they are first used.
template <class Args>
__device__ inline void touch(const Args &args) {
  const auto *words = reinterpret_cast<const unsigned *>(&args);
  unsigned all = 0;
#pragma unroll
  for (unsigned i = 0; i < sizeof(Args) / 4; i += 16) all ^= words[i];
  asm volatile("" ::"r"(all));
}

// Lets the next kernel come to the device, where it waits here until this one is done: what a kernel does begins after
// all that came before it, as without, but its blocks and arguments are there already.
template <class Args>
__device__ inline void begin_kernel(const Args &args) {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
  touch(args);
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}
#endif

// Others, of other blocks too, may put the same there at the same time.
template <class T>
__device__ inline void put_alike(T *to, T value) {
  *const_cast<volatile T *>(to) = value;
}

__device__ inline float infinity() { return __uint_as_float(0x7f800000u); }

// One lane for the templates of kernels/exp.h.
struct Lane {
  float v;
  __device__ static Lane zero() { return {0.0f}; }
  __device__ static Lane broadcast(float x) { return {x}; }
};
__device__ inline Lane add(Lane a, Lane b) { return {a.v + b.v}; }
__device__ inline Lane sub(Lane a, Lane b) { return {a.v - b.v}; }
__device__ inline Lane mul(Lane a, Lane b) { return {a.v * b.v}; }
__device__ inline Lane fma(Lane a, Lane b, Lane c) { return {__fmaf_rn(a.v, b.v, c.v)}; }
__device__ inline Lane where_less(Lane a, Lane b, Lane x, Lane y) { return a.v < b.v ? x : y; }
__device__ inline Lane scale_exponent(Lane a, Lane t) {
  return {__uint_as_float(__float_as_uint(a.v) + (__float_as_uint(t.v) << 23))};
}
__device__ inline Lane exponent(Lane a) {
  return {static_cast<float>(static_cast<int>(__float_as_uint(a.v) - 0x3f3504f3u) >> 23)};
}
__device__ inline float exp1(float x) { return exp(Lane{x}).v; }
__device__ inline float log1(float x) { return log(Lane{x}).v; }

__device__ inline float widen(float x) { return x; }
__device__ inline float widen(std::int8_t x) { return static_cast<float>(x); }
__device__ inline float widen(BF16 x) { return __uint_as_float(static_cast<unsigned>(x.bits) << 16); }
__device__ inline float widen(F16 x) {
#ifdef KVSIFT_EMULATED
  return float_of_half(x.bits);
#else
  return __half2float(__ushort_as_half(x.bits));
#endif
}
__device__ inline F16 narrow_half(float x) {
#ifdef KVSIFT_EMULATED
  return F16{half_of_float(x)};
#else
  return F16{__half_as_ushort(__float2half_rn(x))};
#endif
}

// Element `i` of a row whose type is known at run time.
__device__ inline float element_at(const void *row, kvsift_type type, std::uint32_t i) {
  switch (type) {
    case KVSIFT_F16: return widen(static_cast<const F16 *>(row)[i]);
    case KVSIFT_BF16: return widen(static_cast<const BF16 *>(row)[i]);
    case KVSIFT_I8: return widen(static_cast<const std::int8_t *>(row)[i]);
    default: return static_cast<const float *>(row)[i];
  }
}

// Eight neighbours at once. The address must be a multiple of their bytes, at most 16.
__device__ inline void load8(const float *p, float (&out)[8]) {
  const float4 a = *reinterpret_cast<const float4 *>(p), b = *reinterpret_cast<const float4 *>(p + 4);
  out[0] = a.x, out[1] = a.y, out[2] = a.z, out[3] = a.w;
  out[4] = b.x, out[5] = b.y, out[6] = b.z, out[7] = b.w;
}
template <class T>
__device__ inline void unpack2(unsigned word, float *out) {
  out[0] = widen(T{static_cast<std::uint16_t>(word & 0xffffu)});
  out[1] = widen(T{static_cast<std::uint16_t>(word >> 16)});
}
template <class T>
__device__ inline void load8_of_16_bits(const T *p, float (&out)[8]) {
  const uint4 w = *reinterpret_cast<const uint4 *>(p);
  unpack2<T>(w.x, out);
  unpack2<T>(w.y, out + 2);
  unpack2<T>(w.z, out + 4);
  unpack2<T>(w.w, out + 6);
}
__device__ inline void load8(const F16 *p, float (&out)[8]) { load8_of_16_bits(p, out); }
__device__ inline void load8(const BF16 *p, float (&out)[8]) { load8_of_16_bits(p, out); }
__device__ inline void load8(const std::int8_t *p, float (&out)[8]) {
  const uint2 w = *reinterpret_cast<const uint2 *>(p);
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    out[i] = widen(static_cast<std::int8_t>(w.x >> 8 * i & 0xffu));
    out[4 + i] = widen(static_cast<std::int8_t>(w.y >> 8 * i & 0xffu));
  }
}

// Four neighbours, likewise of at most 16 bytes.
__device__ inline void load4(const float *p, float (&out)[4]) {
  const float4 v = *reinterpret_cast<const float4 *>(p);
  out[0] = v.x, out[1] = v.y, out[2] = v.z, out[3] = v.w;
}
template <class T>
__device__ inline void load4_of_16_bits(const T *p, float (&out)[4]) {
  const uint2 w = *reinterpret_cast<const uint2 *>(p);
  unpack2<T>(w.x, out);
  unpack2<T>(w.y, out + 2);
}
__device__ inline void load4(const F16 *p, float (&out)[4]) { load4_of_16_bits(p, out); }
__device__ inline void load4(const BF16 *p, float (&out)[4]) { load4_of_16_bits(p, out); }
__device__ inline void load4(const std::int8_t *p, float (&out)[4]) {
  const unsigned w = *reinterpret_cast<const unsigned *>(p);
#pragma unroll
  for (int i = 0; i < 4; ++i) out[i] = widen(static_cast<std::int8_t>(w >> 8 * i & 0xffu));
}

// The tree over lanes (i, i + 8), (i, i + 4) ...: the sixteen sums of one thread,
__device__ inline float tree16(const float (&lane)[16]) {
  float x[8];
#pragma unroll
  for (int i = 0; i < 8; ++i) x[i] = lane[i] + lane[i + 8];
#pragma unroll
  for (int i = 0; i < 4; ++i) x[i] = x[i] + x[i + 4];
  return (x[0] + x[2]) + (x[1] + x[3]);
}
// or of two neighbouring threads, of which the even one has lanes 0 .. 7 and the odd one 8 .. 15. Both get the sum.
__device__ inline float tree16_of_pair(const float (&half)[8], unsigned mask) {
  float x[8];
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    const float other = __shfl_xor_sync(mask, half[i], 1);
    x[i] = half[i] + other;  // either order gives the same bits
  }
#pragma unroll
  for (int i = 0; i < 4; ++i) x[i] = x[i] + x[i + 4];
  return (x[0] + x[2]) + (x[1] + x[3]);
}

}  // namespace
}  // namespace kvsift

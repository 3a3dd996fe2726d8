// What a .cu file sees when the host compiler builds it for the emulator: CUDA's keywords, indices and intrinsics, as far
// as the kernels use them. Given to the compiler by -include.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "emulation/emulator.h"
#include "emulation/races.h"

#define KVSIFT_EMULATED 1
#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __noinline__
#define __launch_bounds__(...)
#define __constant__ static
#define __shared__ static __attribute__((section("kvsift_shared")))  // blocks run one after another
#define __align__(n) alignas(n)

#define threadIdx (emulator::thread_index())
#define blockIdx (emulator::block_index())
#define blockDim (emulator::block_size())
#define gridDim (emulator::grid_size())

#define __syncthreads() emulator::sync_threads(__FILE__, __LINE__, 0)
#define __syncthreads_or(p) (emulator::sync_threads(__FILE__, __LINE__, (p) != 0) > 0)
#define __syncthreads_count(p) emulator::sync_threads(__FILE__, __LINE__, (p) != 0)
#define __threadfence() emulator::races::fence()
#define __threadfence_system() emulator::races::fence()

#define KVSIFT_WARP_OP(op, mask, value, argument) \
  emulator::warp(emulator::Op::op, mask, value, argument, 32, __FILE__, __LINE__)
#define __syncwarp (emulator::WarpSync{__FILE__, __LINE__})
#define __shfl_sync(mask, value, ...) emulator::shuffle(emulator::Op::kIndex, mask, value, __FILE__, __LINE__, __VA_ARGS__)
#define __shfl_up_sync(mask, value, ...) emulator::shuffle(emulator::Op::kUp, mask, value, __FILE__, __LINE__, __VA_ARGS__)
#define __shfl_down_sync(mask, value, ...) \
  emulator::shuffle(emulator::Op::kDown, mask, value, __FILE__, __LINE__, __VA_ARGS__)
#define __shfl_xor_sync(mask, value, ...) emulator::shuffle(emulator::Op::kXor, mask, value, __FILE__, __LINE__, __VA_ARGS__)
#define __ballot_sync(mask, p) static_cast<unsigned>(KVSIFT_WARP_OP(kBallot, mask, (p) != 0, 0))
#define __any_sync(mask, p) (KVSIFT_WARP_OP(kBallot, mask, (p) != 0, 0) != 0)
#define __all_sync(mask, p) (KVSIFT_WARP_OP(kBallot, mask, (p) != 0, 0) == (mask))
#define __reduce_add_sync(mask, v) static_cast<unsigned>(KVSIFT_WARP_OP(kSum, mask, v, 0))
#define __reduce_max_sync(mask, v) static_cast<unsigned>(KVSIFT_WARP_OP(kMax, mask, v, 0))
#define __reduce_min_sync(mask, v) static_cast<unsigned>(KVSIFT_WARP_OP(kMin, mask, v, 0))

struct alignas(8) uint2 { unsigned x, y; };
struct alignas(16) uint4 { unsigned x, y, z, w; };
struct alignas(16) int4 { int x, y, z, w; };
struct alignas(8) float2 { float x, y; };
struct alignas(16) float4 { float x, y, z, w; };

inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

template <class To, class From>
To same_bits(From from) {
  static_assert(sizeof(To) == sizeof(From), "");
  To to;
  std::memcpy(&to, &from, sizeof to);
  return to;
}
inline unsigned __float_as_uint(float x) { return same_bits<unsigned>(x); }
inline int __float_as_int(float x) { return same_bits<int>(x); }
inline float __uint_as_float(unsigned x) { return same_bits<float>(x); }
inline float __int_as_float(int x) { return same_bits<float>(x); }
inline float __fmaf_rn(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __fsqrt_rn(float x) { return __builtin_sqrtf(x); }
// Four products of int8.
inline int __dp4a(int a, int b, int c) {
  for (int i = 0; i < 32; i += 8) c += static_cast<std::int8_t>(a >> i & 0xff) * static_cast<std::int8_t>(b >> i & 0xff);
  return c;
}
inline unsigned __dp4a(unsigned a, unsigned b, unsigned c) {
  for (int i = 0; i < 32; i += 8) c += (a >> i & 0xff) * (b >> i & 0xff);
  return c;
}
// Two products of int16 with the lower, or upper, int8 of four.
inline int two_products(int a, int b, int c) {
  return c + static_cast<std::int16_t>(a & 0xffff) * static_cast<std::int8_t>(b & 0xff) +
         static_cast<std::int16_t>(a >> 16) * static_cast<std::int8_t>(b >> 8 & 0xff);
}
inline int __dp2a_lo(int a, int b, int c) { return two_products(a, b, c); }
inline int __dp2a_hi(int a, int b, int c) { return two_products(a, b >> 16, c); }
inline unsigned __byte_perm(unsigned a, unsigned b, unsigned select) {
  const unsigned long long bytes = a | static_cast<unsigned long long>(b) << 32;
  unsigned out = 0;
  for (int i = 0; i < 4; ++i) out |= static_cast<unsigned>(bytes >> (select >> 4 * i & 7) * 8 & 0xff) << 8 * i;
  return out;
}
inline unsigned min(unsigned a, unsigned b) { return a < b ? a : b; }
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
inline int __clz(int x) { return x == 0 ? 32 : __builtin_clz(static_cast<unsigned>(x)); }
inline int __ffs(int x) { return __builtin_ffs(x); }

template <class T>
T __ldg(const T *p) {
  return *p;
}
template <class T, class U>
T atomicAdd(T *p, U v) {
  const emulator::races::Atomic scope(p);
  const T old = *p;
  *p = static_cast<T>(old + static_cast<T>(v));
  return old;
}
template <class T, class U>
T atomicMax(T *p, U v) {
  const emulator::races::Atomic scope(p);
  const T old = *p;
  if (static_cast<T>(v) > old) *p = static_cast<T>(v);
  return old;
}
template <class T, class U>
T atomicMin(T *p, U v) {
  const emulator::races::Atomic scope(p);
  const T old = *p;
  if (static_cast<T>(v) < old) *p = static_cast<T>(v);
  return old;
}
template <class T, class U>
T atomicOr(T *p, U v) {
  const emulator::races::Atomic scope(p);
  const T old = *p;
  *p = old | static_cast<T>(v);
  return old;
}
template <class T, class U>
T atomicExch(T *p, U v) {
  const emulator::races::Atomic scope(p);
  const T old = *p;
  *p = static_cast<T>(v);
  return old;
}
template <class T, class U>
T atomicCAS(T *p, U compare, U v) {
  const emulator::races::Atomic scope(p);
  const T old = *p;
  if (old == static_cast<T>(compare)) *p = static_cast<T>(v);
  return old;
}

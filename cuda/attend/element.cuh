// The element types that attention's kernels are compiled for.
#pragma once

#include "cuda/core/device.cuh"

namespace kvsift {
namespace {

// Rows of any type, size and alignment: element by element, and as float32 in shared memory.
struct AnyType {};

// The type that a row's elements have in shared memory.
template <class T>
struct Staged {
  using Type = T;
};
template <>
struct Staged<AnyType> {
  using Type = float;
};

}  // namespace
}  // namespace kvsift

#define KVSIFT_KERNEL_OF_TYPE(name, body, T, Args, threads, blocks) \
  KVSIFT_KERNEL_RESIDENT(name, Args, threads, blocks) {              \
    KVSIFT_DYNAMIC_SHARED(dynamic);                                  \
    body<T>(args, dynamic);                                          \
  }

// name_f32, name_f16, name_bf16, name_i8; and name_any for keys and values of types of their own, odd sizes or unaligned rows.
#define KVSIFT_KERNELS_OF_TYPES(name, body, Args, threads, blocks)                   \
  KVSIFT_KERNEL_OF_TYPE(name##_f32, body, float, Args, threads, blocks)              \
  KVSIFT_KERNEL_OF_TYPE(name##_f16, body, kvsift::F16, Args, threads, blocks)        \
  KVSIFT_KERNEL_OF_TYPE(name##_bf16, body, kvsift::BF16, Args, threads, blocks)      \
  KVSIFT_KERNEL_OF_TYPE(name##_i8, body, std::int8_t, Args, threads, blocks)         \
  KVSIFT_KERNEL_OF_TYPE(name##_any, body, kvsift::AnyType, Args, threads, blocks)

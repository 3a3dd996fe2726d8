// One KV head of one layer on the device, as struct HeadState is on the CPU.
#pragma once

#include "cuda/core/device.cuh"
#include "cuda/policy/image.h"

namespace kvsift {
namespace {

template <class T>
__device__ inline T *in_image(const Image &image, std::uint64_t offset) {
  return reinterpret_cast<T *>(image.base + offset);
}

__device__ inline Progress *progress_of(const Image &image) { return in_image<Progress>(image, image.progress); }

// The cache length that the call is about.
__device__ inline std::uint32_t tokens_of(const Call &call) {
  return call.tokens != 0 ? call.tokens : progress_of(call.image)->tokens + 1;
}

struct DeviceHead {
  const Image &image;
  std::uint32_t layer, kv_head;

  __device__ const Settings &settings() const { return image.s; }
  __device__ char *bytes() const {
    const std::uint64_t index = std::uint64_t{layer - image.s.c.dense_layers} * image.s.c.kv_heads + kv_head;
    return image.base + image.units + index * image.at.bytes;
  }
  __device__ Unit *unit() const { return reinterpret_cast<Unit *>(bytes()); }
  template <class T>
  __device__ T *at(std::uint64_t offset) const {
    return reinterpret_cast<T *>(bytes() + offset);
  }
  // Of the method, as HeadState::state.
  template <class T>
  __device__ T *state(std::uint32_t field) const {
    return at<T>(image.at.method[field]);
  }
  __device__ HeadMarks *marks() const { return in_image<HeadMarks>(image, image.marks) + kv_head; }
  __device__ StepRecord *step() const { return in_image<StepRecord>(image, image.room.steps) + kv_head; }
  __device__ Scratch scratch() const {
    const std::uint32_t most = image.s.max_blocks > image.s.max_pages ? image.s.max_blocks : image.s.max_pages;
    const std::uint64_t stride = (most + 15) / 16 * 16;
    float *scores = in_image<float>(image, image.scratch) + kv_head * image.scratch_floats;
    float *spare = scores + image.s.group * stride, *choice = spare + image.s.group * stride;
    return Scratch{stride, scores, spare, choice, choice + stride};
  }
};

__device__ inline DeviceHead head_of(const Call &call) {
  return DeviceHead{call.image, call.layer, call.first_head + blockIdx.y};
}

// Tells the host; the first fault stays.
__device__ inline void report(const Call &call, std::uint32_t what, std::uint32_t head) {
  Fault *fault = call.image.fault;
  if (atomicCAS(&fault->what, 0u, what) != 0) return;
  fault->layer = call.layer;
  fault->head = head;
  fault->tokens = tokens_of(call);
}

}  // namespace
}  // namespace kvsift

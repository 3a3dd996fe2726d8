// A CPU policy's image on the device, for tests of the kernels that work on it.
#pragma once

#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "cuda/core/launcher.h"
#include "cuda/methods/attention_predictor.h"
#include "on_device.h"
#include "policy/policy.h"

namespace kvsift_test {

using namespace kvsift;

inline void must(kvsift_status status, const kvsift_error &error) {
  if (status == KVSIFT_OK) return;
  std::fprintf(stderr, "%s\n", error.message);
  std::abort();
}

// A policy on the CPU, and its bytes on the device as they were when it was made.
class Twins {
 public:
  Twins(const kvsift_policy_config &config, std::uint64_t room_bytes) {
    kvsift_policy_config c = config;
    c.error = &error_;
    std::uint64_t alignment;
    must(kvsift_policy_arena_size(&c, &bytes_, &alignment), error_);
    arena_ = static_cast<char *>(std::aligned_alloc(64, bytes_));
    must(kvsift_policy_create(&c, arena_, bytes_, &policy_), error_);
    const std::uint64_t all = bytes_ + 2 * kRecords + room_bytes;
    read_ = static_cast<char *>(std::calloc(1, all));
    device_ = static_cast<char *>(gpu_new(all, read_));
    gpu_write(device_, arena_, bytes_);
    const Fault none{};
    fault_ = static_cast<Fault *>(gpu_new(sizeof none, &none));
  }
  ~Twins() {
    gpu_free(device_);
    gpu_free(fault_);
    std::free(arena_);
    std::free(read_);
  }
  Twins(const Twins &) = delete;
  Twins &operator=(const Twins &) = delete;

  kvsift_policy *policy() const { return policy_; }
  Policy *inside() const { return reinterpret_cast<Policy *>(arena_); }
  const Settings &settings() const { return inside()->s; }
  char *device() const { return device_; }
  // What the method asked for, behind the steps and tickets.
  char *room() const { return device_ + method_room(); }

  Call call(std::uint32_t layer, std::uint32_t tokens) const {
    const Policy *p = inside();
    Call call{};
    call.layer = layer;
    call.tokens = tokens;
    Image &image = call.image;
    image.base = device_;
    image.fault = fault_;
    image.s = p->s;
    image.at = p->places;
    image.room.steps = bytes_;
    image.room.tickets = bytes_ + kRecords;
    image.room.kept_counts = bytes_ + kRecords + kRecords / 2;
    image.room.method = method_room();
    image.progress = static_cast<std::uint64_t>(reinterpret_cast<const char *>(&p->tokens) - arena_);
    image.units = p->units.bytes;
    image.scratch = p->scratch.bytes;
    image.scratch_floats = p->scratch_floats;
    image.ranges = p->ranges.bytes;
    image.range_counts = p->range_counts.bytes;
    image.blocks = p->blocks.bytes;
    image.block_counts = p->block_counts.bytes;
    image.missed = p->missed.bytes;
    image.missed_counts = p->missed_counts.bytes;
    image.marks = p->marks.bytes;
    return call;
  }

  // The device's policy counters and scratch become the CPU's.
  void share_progress() const {
    const std::uint64_t at = static_cast<std::uint64_t>(reinterpret_cast<const char *>(&inside()->tokens) - arena_);
    gpu_write(device_ + at, arena_ + at, sizeof(Progress));
    const std::uint64_t scratch = inside()->scratch.bytes;
    gpu_write(device_ + scratch, arena_ + scratch, bytes_ - scratch);
  }

  // The first byte from `from` on in which a unit of the layer differs; -1: none.
  long differs(std::uint32_t layer, std::uint64_t from) const {
    gpu_read(read_, device_, bytes_);
    const std::uint64_t size = inside()->places.bytes;
    for (std::uint32_t head = 0; head < settings().c.kv_heads; ++head) {
      const auto at = static_cast<std::uint64_t>(
          reinterpret_cast<const char *>(inside()->unit(layer - settings().c.dense_layers, head)) - arena_);
      for (std::uint64_t i = from; i < size; ++i) {
        if (arena_[at + i] != read_[at + i]) return static_cast<long>(head * size + i);
      }
    }
    return -1;
  }

  // Whether the lists of all heads are the CPU's.
  bool same_lists() const {
    gpu_read(read_, device_, bytes_);
    const Policy *p = inside();
    const std::uint32_t lists = settings().lists * settings().c.kv_heads;
    bool same = same_bytes(p->range_counts, 0, lists) && same_bytes(p->block_counts, 0, lists);
    for (std::uint32_t i = 0; same && i < lists; ++i) {
      const std::uint64_t ranges = std::uint64_t{i} * settings().list_ranges, blocks = std::uint64_t{i} * settings().list_blocks;
      same = same_bytes(p->ranges, ranges, p->range_counts.in(arena_)[i]) &&
             same_bytes(p->blocks, blocks, p->block_counts.in(arena_)[i]);
    }
    return same;
  }

  std::uint32_t fault() const {
    Fault fault;
    gpu_read(&fault, fault_, sizeof fault);
    return fault.what;
  }

 private:
  static constexpr std::uint64_t kRecords = 1024;
  std::uint64_t method_room() const { return bytes_ + 2 * kRecords; }

  template <class T>
  bool same_bytes(const Offset<T> &array, std::uint64_t first, std::uint64_t count) const {
    return std::memcmp(array.in(arena_) + first, array.in(read_) + first, count * sizeof(T)) == 0;
  }

  kvsift_error error_{};
  std::uint64_t bytes_ = 0;
  kvsift_policy *policy_ = nullptr;
  char *arena_ = nullptr, *device_ = nullptr, *read_ = nullptr;
  Fault *fault_ = nullptr;
};

}  // namespace kvsift_test

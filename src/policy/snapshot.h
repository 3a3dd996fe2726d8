// A policy's state as bytes: what is in use of every unit, with a header that says what it belongs to.
#pragma once

#include <cstring>

#include "policy/policy.h"

namespace kvsift {

// A unit's bytes in a snapshot that comes from outside: nothing in them can be trusted, and nothing is aligned.
class UnitImage {
 public:
  UnitImage(const Settings &settings, const UnitPlaces &places, std::uint32_t reach, const char *bytes)
      : settings_(settings), places_(places), reach_(reach), bytes_(bytes) {}

  // The buffer that begins at `offset` of a unit.
  const char *at(std::uint64_t offset) const;
  // Its `index`-th element.
  template <class T>
  T read(std::uint64_t offset, std::uint64_t index) const {
    T value;
    std::memcpy(&value, at(offset) + index * sizeof(T), sizeof value);
    return value;
  }

 private:
  const Settings &settings_;
  const UnitPlaces &places_;
  std::uint32_t reach_;
  const char *bytes_;
};

std::uint64_t snapshot_bytes(const Policy &policy);

// `buffer` holds snapshot_bytes.
void save(const Policy &policy, void *buffer);

// Checks all of the buffer before it changes the policy; the sentence goes to `error`.
kvsift_status load(Policy *policy, const void *buffer, std::uint64_t bytes, kvsift_error *error);

}  // namespace kvsift

#pragma once

#include <cstdint>

struct HazardArgs {
  std::uint32_t broken;
  const std::uint32_t *in;
  std::uint32_t *out, *arrivals;
};

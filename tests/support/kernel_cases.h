// Random inputs for tests of kernels, in buffers that end at unreadable memory.
#pragma once

#include <cmath>
#include <cstring>
#include <initializer_list>

#include "core/half.h"
#include "guarded.h"
#include "kernels/kernels.h"

namespace kvsift_test {

using namespace kvsift;

constexpr kvsift_type kTypes[] = {KVSIFT_F32, KVSIFT_F16, KVSIFT_BF16, KVSIFT_I8};

struct Random {
  std::uint64_t state;
  std::uint32_t next() {
    state = state * 6364136223846793005ull + 1442695040888963407ull;
    return static_cast<std::uint32_t>(state >> 32);
  }
  std::uint32_t below(std::uint32_t n) { return next() % n; }
  float uniform() { return static_cast<float>(next() >> 8) * 0x1p-23f - 1.0f; }
  // Mostly ordinary, at times zero of either sign, tiny (subnormal) or large.
  float value() {
    switch (below(24)) {
      case 0: return 0.0f;
      case 1: return -0.0f;
      case 2: return uniform() * 1e-40f;
      case 3: return uniform() * 1e-7f;
      case 4: return uniform() * 6e4f;
      default: return uniform() * 3.0f;
    }
  }
};

// An array in guarded memory.
template <class T>
struct Buffer {
  T *data;
  std::size_t count;
  explicit Buffer(std::size_t n) : data(static_cast<T *>(guarded_new(n * sizeof(T)))), count(n) {}
  ~Buffer() { guarded_free(data, count * sizeof(T)); }
  Buffer(const Buffer &) = delete;
  Buffer &operator=(const Buffer &) = delete;
};

inline void fill(Random &random, Buffer<float> &buffer) {
  for (std::size_t i = 0; i < buffer.count; ++i) buffer.data[i] = random.value();
}

inline void store_element(std::uint8_t *to, kvsift_type type, float x) {
  const std::uint16_t half = type == KVSIFT_F16 ? half_of_float(x) : bfloat_of_float(x);
  const auto byte = static_cast<std::int8_t>(x > 127.0f ? 127.0f : x < -127.0f ? -127.0f : x);
  if (type == KVSIFT_F32) std::memcpy(to, &x, 4);
  if (type == KVSIFT_F16 || type == KVSIFT_BF16) std::memcpy(to, &half, 2);
  if (type == KVSIFT_I8) std::memcpy(to, &byte, 1);
}

// Rows with `gap` elements between them, the last ending at unreadable memory. Tame rows hold
// values within 1.
struct RandomRows {
  std::uint32_t count, dim;
  std::uint64_t stride;
  Buffer<std::uint8_t> bytes;
  Buffer<float> scales;
  Rows rows;

  RandomRows(Random &random, kvsift_type type, std::uint32_t n, std::uint32_t d, std::uint32_t gap,
             bool tame = false)
      : count(n),
        dim(d),
        stride(static_cast<std::uint64_t>(d + gap) * element_bytes(type)),
        bytes(n == 0 ? 0 : (n - 1) * stride + d * element_bytes(type)),
        scales(type == KVSIFT_I8 ? n : 0),
        rows{bytes.data, type, stride, type == KVSIFT_I8 ? scales.data : nullptr, sizeof(float)} {
    for (std::uint32_t i = 0; i < n; ++i) {
      for (std::uint32_t c = 0; c < d; ++c) {
        const float x = type == KVSIFT_I8 ? random.uniform() * 127.0f
                        : tame            ? random.uniform()
                                          : random.value();
        store_element(bytes.data + i * stride + c * element_bytes(type), type, x);
      }
      if (type == KVSIFT_I8) scales.data[i] = 0.01f + 0.01f * random.uniform();
    }
  }

  double at(std::uint32_t i, std::uint32_t c) const {
    const std::uint8_t *p = bytes.data + i * stride + c * element_bytes(rows.type);
    std::uint16_t half;
    float x = 0.0f;
    std::memcpy(&half, p, rows.type == KVSIFT_I8 ? 1 : 2);
    if (rows.type == KVSIFT_F32) std::memcpy(&x, p, 4);
    if (rows.type == KVSIFT_F16) x = float_of_half(half);
    if (rows.type == KVSIFT_BF16) x = float_of_bfloat(half);
    if (rows.type == KVSIFT_I8) x = static_cast<float>(*reinterpret_cast<const std::int8_t *>(p));
    return static_cast<double>(x) * static_cast<double>(scale(i));
  }
  float scale(std::uint32_t i) const { return rows.type == KVSIFT_I8 ? scales.data[i] : 1.0f; }
};

// The same rows, each where a list says; what lies at a stride from `data` is nothing.
struct AsList {
  Buffer<const std::uint8_t *> list;
  Rows rows;

  explicit AsList(const RandomRows &of) : list(of.count), rows(of.rows) {
    for (std::uint32_t i = 0; i < of.count; ++i) list.data[i] = of.rows.row(i);
    rows.data = nullptr;
    rows.stride = 0;
    rows.list = list.data;
  }
};

inline float largest_size(const float *x, std::uint32_t n) {
  float largest = 0;
  for (std::uint32_t i = 0; i < n; ++i) largest = std::fmax(largest, std::fabs(x[i]));
  return largest;
}

// x as its int8 code among numbers up to `largest` gives it back.
inline double coded(float x, float largest) {
  const float scale = largest / 127.0f;
  return largest > 0 ? static_cast<double>(std::nearbyint(x * (1.0f / scale))) * static_cast<double>(scale) : 0;
}

// What a query makes of a page in float64. Int8 pages meet int8 queries, and squares of theirs that are whole multiples of
// 128 units.
struct PageFigures {
  double dot = 0, square = 0, sum = 0, size = 0;

  PageFigures(const float *query, const RandomRows &mean, const RandomRows &deviation, std::uint32_t page, std::uint32_t dim) {
    const float largest = largest_size(query, dim);
    const bool codes = mean.rows.type == KVSIFT_I8;
    const double unit = static_cast<double>(deviation.scale(page));
    for (std::uint32_t c = 0; c < dim; ++c) {
      const double q = codes ? coded(query[c], largest) : static_cast<double>(query[c]);
      const double q2 = codes ? coded(query[c] * query[c], largest * largest) : q * q;
      const double m = mean.at(page, c), d = deviation.at(page, c);
      const double d2 = codes ? std::floor(std::pow(std::round(d / unit), 2) / 128 + 0.5) * 128 * unit * unit : d * d;
      dot += q * m;
      square += q2 * d2;
      sum += std::fabs(q) * d;
      size += std::fabs(q) * (std::fabs(m) + std::fabs(d));
    }
  }
};

// Queries [group][padded_dim(dim)] with zero padding.
inline void fill_queries(Random &random, Buffer<float> &queries, std::uint32_t group,
                         std::uint32_t dim) {
  for (std::uint32_t g = 0; g < group; ++g)
    for (std::uint32_t c = 0; c < padded_dim(dim); ++c)
      queries.data[g * padded_dim(dim) + c] = c < dim ? random.value() : 0.0f;
}

inline bool same_bits(const void *a, const void *b, std::size_t bytes) {
  return std::memcmp(a, b, bytes) == 0;
}

// f(kernels, name) for each level besides scalar that is compiled in and that this machine runs.
template <class F>
unsigned for_levels(F f) {
  unsigned levels = 0;
  for (std::uint32_t l = 1; l < kLevels; ++l) {
    const Level level = static_cast<Level>(l);
    if (kernels(level) == nullptr || !machine_has(level)) continue;
    f(*kernels(level), level_name(level));
    ++levels;
  }
  return levels;
}

}  // namespace kvsift_test

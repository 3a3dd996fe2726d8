// Where a kernel's rows lie: at one stride, or where a list says.
#pragma once

#include "kernels/load_part.h"

namespace kvsift {
namespace {

// All<T>: all[i] is the address of row i. Rows<T, N>: row[n] is that of the n-th of N rows from i on.
struct Strided {
  template <class T>
  struct All {
    const std::uint8_t *data;
    std::uint64_t stride;

    explicit All(const kvsift::Rows &rows) : data(rows.data), stride(rows.stride) {}
    const T *operator[](std::uint64_t i) const { return reinterpret_cast<const T *>(data + i * stride); }
  };
  template <class T, std::uint32_t N>
  struct Rows {
    const T *first;
    std::uint64_t step;

    Rows(const kvsift::Rows &rows, std::uint64_t i)
        : first(reinterpret_cast<const T *>(rows.data + i * rows.stride)), step(rows.stride / sizeof(T)) {}
    const T *operator[](std::uint32_t n) const { return first + n * step; }
  };
};
struct Listed {
  template <class T>
  struct All {
    const std::uint8_t *const *list;

    explicit All(const kvsift::Rows &rows) : list(rows.list) {}
    const T *operator[](std::uint64_t i) const { return reinterpret_cast<const T *>(list[i]); }
  };
  template <class T, std::uint32_t N>
  struct Rows {
    const T *row[N];

    Rows(const kvsift::Rows &rows, std::uint64_t i) {
      for (std::uint32_t n = 0; n < N; ++n) row[n] = reinterpret_cast<const T *>(rows.list[i + n]);
    }
    const T *operator[](std::uint32_t n) const { return row[n]; }
  };
};
// Either, asked each time.
struct Anywhere {
  template <class T>
  struct All {
    const kvsift::Rows rows;

    explicit All(const kvsift::Rows &from) : rows(from) {}
    const T *operator[](std::uint64_t i) const { return row_of<T>(rows, i); }
  };
  template <class T, std::uint32_t N>
  struct Rows {
    const T *row[N];

    Rows(const kvsift::Rows &rows, std::uint64_t i) {
      for (std::uint32_t n = 0; n < N; ++n) row[n] = row_of<T>(rows, i + n);
    }
    const T *operator[](std::uint32_t n) const { return row[n]; }
  };
};

// f(Strided{}) or f(Listed{}); the scalar reference, whose speed does not count, has one form for both.
template <class V, class F>
void by_places(const Rows &rows, F f) {
  if constexpr (V::kQueryTile == 1) {
    f(Anywhere{});
  } else if (rows.list != nullptr) {
    f(Listed{});
  } else {
    f(Strided{});
  }
}

}  // namespace
}  // namespace kvsift

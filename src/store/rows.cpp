#include "store/rows.h"

#include <cstring>

#include "core/half.h"
#include "core/view.h"

namespace kvsift {
namespace {

const std::uint8_t *row_at(const kvsift_view &view, std::uint32_t head, std::uint32_t token) {
  return static_cast<const std::uint8_t *>(view.data) + token * view.token_stride + head * view.head_stride;
}

float scale_at(const kvsift_view &view, std::uint32_t head, std::uint32_t token) {
  const auto *bytes = reinterpret_cast<const std::uint8_t *>(view.scales);
  float scale;
  std::memcpy(&scale, bytes + token * view.scale_token_stride + head * view.scale_head_stride, sizeof scale);
  return scale;
}

float element(const std::uint8_t *row, kvsift_type type, std::uint32_t i) {
  if (type == KVSIFT_F32) {
    float value;
    std::memcpy(&value, row + 4ull * i, sizeof value);
    return value;
  }
  std::uint16_t bits;
  std::memcpy(&bits, row + 2ull * i, sizeof bits);
  return type == KVSIFT_F16 ? float_of_half(bits) : float_of_bfloat(bits);
}

bool finite(float value) { return (bits_of_float(value) & 0x7f800000u) != 0x7f800000u; }

// Symmetric, one scale a row, round half away from zero.
float quantize(const std::uint8_t *row, kvsift_type type, std::uint32_t dim, std::int8_t *out) {
  float largest = 0;
  for (std::uint32_t i = 0; i < dim; ++i) {
    const float magnitude = __builtin_fabsf(element(row, type, i));
    if (magnitude > largest) largest = magnitude;
  }
  const float scale = largest / 127.0f;
  // A row of subnormals has a scale that cannot be divided by.
  if (!(scale >= 1.1754944e-38f)) {
    std::memset(out, 0, dim);
    return 0;
  }
  for (std::uint32_t i = 0; i < dim; ++i) {
    const float level = element(row, type, i) / scale;
    const auto rounded = static_cast<std::int32_t>(level + (level < 0 ? -0.5f : 0.5f));
    out[i] = static_cast<std::int8_t>(rounded > 127 ? 127 : rounded < -127 ? -127 : rounded);
  }
  return scale;
}

}  // namespace

void store_rows(const Geometry &g, const kvsift_view &view, std::uint32_t head, std::uint32_t first,
                std::uint32_t tokens, std::uint8_t *rows, float *scales, std::uint32_t offset) {
  std::uint8_t *out = rows + offset * g.row_bytes;
  if (g.type == g.storage && view.token_stride == g.row_bytes) {
    std::memcpy(out, row_at(view, head, first), tokens * g.row_bytes);
  }
  for (std::uint32_t t = 0; t < tokens; ++t, out += g.row_bytes) {
    const std::uint8_t *row = row_at(view, head, first + t);
    if (g.type != g.storage) {
      scales[offset + t] = quantize(row, g.type, g.head_dim, reinterpret_cast<std::int8_t *>(out));
      continue;
    }
    if (view.token_stride != g.row_bytes) std::memcpy(out, row, g.row_bytes);
    if (g.storage == KVSIFT_I8) scales[offset + t] = scale_at(view, head, first + t);
  }
}

std::uint32_t first_not_finite(const Geometry &g, const kvsift_view &view, std::uint32_t tokens) {
  for (std::uint32_t t = 0; t < tokens; ++t) {
    for (std::uint32_t h = 0; h < g.kv_heads; ++h) {
      if (g.type == KVSIFT_I8) {
        if (!finite(scale_at(view, h, t))) return t;
        continue;
      }
      const std::uint8_t *row = row_at(view, h, t);
      for (std::uint32_t i = 0; i < g.head_dim; ++i) {
        if (!finite(element(row, g.type, i))) return t;
      }
    }
  }
  return tokens;
}

}  // namespace kvsift

#include "policy/pages.h"

#include "policy/undo.h"

namespace kvsift {
namespace {

// One row of a summary array, stored as float16, or int8 with its scale. What float16 cannot hold becomes the largest
// that it can: a page that weighs nothing must add nothing.
void write_row(const HeadState &head, std::uint64_t array, std::uint64_t scales, std::uint32_t page, const float *row) {
  constexpr float kLargestHalf = 65504.0f;
  const Settings &s = head.settings();
  if (s.c.moments_type == KVSIFT_I8) {
    head.at<float>(scales)[page] =
        head.k().array.to_int8(row, head.at<std::int8_t>(array) + std::uint64_t{page} * s.dim16, s.dim16);
    return;
  }
  float held[KVSIFT_MAX_HEAD_DIM];
  for (std::uint32_t c = 0; c < s.dim16; ++c) {
    const float x = row[c] < kLargestHalf ? row[c] : kLargestHalf;
    held[c] = x > -kLargestHalf ? x : -kLargestHalf;
  }
  head.k().array.to_half(held, head.at<F16>(array) + std::uint64_t{page} * s.dim16, s.dim16);
}

// `count` tokens of the page are in the running statistics.
void write_page(const HeadState &head, std::uint32_t page, std::uint32_t count) {
  const Settings &s = head.settings();
  const UnitPlaces &p = head.places();
  if (s.page_moments) {
    float *mean = head.at<float>(p.open_page);
    float deviation[KVSIFT_MAX_HEAD_DIM];
    head.k().page.deviation(mean + s.dim16, s.c.head_dim, count, deviation);
    write_row(head, p.key_mean, p.key_mean_scale, page, mean);
    write_row(head, p.key_std, p.key_std_scale, page, deviation);
    if (s.value_moments) write_row(head, p.value_mean, p.value_mean_scale, page, mean + 2 * s.dim16);
  }
  if (s.page_bounds) {
    const F16 *bounds = head.at<F16>(p.open_bounds);
    F16 *low = head.at<F16>(p.key_min) + std::uint64_t{page} * s.dim16;
    F16 *high = head.at<F16>(p.key_max) + std::uint64_t{page} * s.dim16;
    for (std::uint32_t c = 0; c < s.dim16; ++c) {
      low[c] = bounds[c];
      high[c] = bounds[s.dim16 + c];
    }
  }
}

void append_to_page(const HeadState &head, const Rows &keys, const Rows &values, std::uint32_t count,
                    std::uint32_t seen) {
  const Settings &s = head.settings();
  const UnitPlaces &p = head.places();
  const PageKernels &k = head.k().page;
  if (s.page_moments) {
    float *mean = head.at<float>(p.open_page);
    k.append(keys, count, s.c.head_dim, seen, mean, mean + s.dim16);
    if (s.value_moments) k.append(values, count, s.c.head_dim, seen, mean + 2 * s.dim16, nullptr);
  }
  if (s.page_bounds) {
    F16 *bounds = head.at<F16>(p.open_bounds);
    k.append_bounds(keys, count, s.c.head_dim, seen == 0, bounds, bounds + s.dim16);
  }
}

}  // namespace

Moments moments_of(const HeadState &head, std::uint32_t tokens) {
  const Settings &s = head.settings();
  const UnitPlaces &p = head.places();
  Moments m{s.c.head_dim, s.c.page_tokens, tokens, s.c.moments_type, head.at<void *>(p.key_mean),
            head.at<void *>(p.key_std), nullptr, nullptr, nullptr, nullptr, head.policy->multiplies_int8};
  if (s.value_moments) m.value = head.at<void *>(p.value_mean);
  if (s.c.moments_type == KVSIFT_I8) {
    m.mean_scale = head.at<float>(p.key_mean_scale);
    m.deviation_scale = head.at<float>(p.key_std_scale);
    if (s.value_moments) m.value_scale = head.at<float>(p.value_mean_scale);
  }
  return m;
}

void append_keys(const HeadState &head, const HeadRows &keys, const HeadRows &values, std::uint32_t tokens) {
  const Settings &s = head.settings();
  const std::uint32_t size = s.c.page_tokens;
  Unit &unit = *head.unit;
  for (std::uint32_t i = 0; i < tokens;) {
    const std::uint32_t seen = unit.keys_seen % size;
    // Token by token where the undo ring wants each length, else up to there or to the page's end.
    const std::uint32_t left = tokens - i, single = s.c.rollback_tokens;
    std::uint32_t count = left > single ? left - single : 1;
    if (count > size - seen) count = size - seen;
    if (count == 1) remember(head, unit.keys_seen);
    const Rows key_rows = keys.stretch(i, &count);
    const Rows value_rows = s.value_moments ? values.stretch(i, &count) : key_rows;
    append_to_page(head, key_rows, value_rows, count, seen);
    unit.keys_seen += count;
    i += count;
    if (s.page_moments || s.page_bounds) write_page(head, (unit.keys_seen - 1) / size, seen + count);
  }
}

void rewrite_open_page(const HeadState &head) {
  const Settings &s = head.settings();
  const std::uint32_t tokens = head.unit->keys_seen;
  if (tokens % s.c.page_tokens == 0 || !(s.page_moments || s.page_bounds)) return;
  write_page(head, tokens / s.c.page_tokens, tokens % s.c.page_tokens);
}

}  // namespace kvsift

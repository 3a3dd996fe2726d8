#include "predictor/network.h"

#include <cstring>

#include "core/half.h"
#include "predictor/mean.h"

namespace kvsift {
namespace {

constexpr std::uint32_t kFewestColumns = 3;  // fewer cannot be predicted

template <class T>
T least(T a, T b) {
  return a < b ? a : b;
}
template <class T>
T most(T a, T b) {
  return a > b ? a : b;
}

char *row_at(const PredictorHistory &h, std::uint64_t row) {
  const std::uint64_t bytes = std::uint64_t{h.shape.columns} * share_bytes(h.shape.form);
  return static_cast<char *>(h.ring) + row % h.shape.slots * bytes;
}

std::uint64_t window_begin(const PredictorHistory &h) {
  const PredictorState &state = *h.state;
  const std::uint64_t begin = state.end < h.shape.rows ? 0 : state.end - h.shape.rows;
  return most(begin, state.oldest);
}

template <class T>
void put_columns(const PredictorHistory &h, std::uint32_t begin, std::uint32_t end, T zero) {
  for (std::uint32_t slot = 0; slot < h.shape.slots; ++slot) {
    T *row = reinterpret_cast<T *>(row_at(h, slot));
    // A decode step opens one column at most: a call for each row's would cost more than the rest.
    if (end - begin == 1) {
      row[begin] = zero;
    } else {
      std::memset(row + begin, static_cast<int>(zero), (end - begin) * sizeof(T));
    }
  }
}

void zero_columns(const PredictorHistory &h, std::uint32_t begin, std::uint32_t end) {
  switch (h.shape.form) {
    case HistoryForm::kRoot8: return put_columns<std::int8_t>(h, begin, end, -128);
    case HistoryForm::kHalf: return put_columns<std::uint16_t>(h, begin, end, 0);
    case HistoryForm::kFloat: return put_columns<float>(h, begin, end, 0.0f);
  }
}

// Whether the s of `row` was computed from the same history rows, and the same padding, as it would be now.
bool holds(const PredictorState &state, std::uint64_t begin, std::uint64_t row) {
  if (row < state.s_begin || row >= state.s_end) return false;
  const std::uint64_t above = row < kReach ? 0 : row - kReach, below = row + kReach + 1;
  return most(above, state.s_top) == most(above, begin) &&
         least(below, state.s_bottom) == least(below, state.end);
}

void compute_rows(const PredictorHistory &h, std::uint64_t begin, std::uint64_t row, std::uint32_t count,
                  std::uint32_t first_column, std::uint32_t right, bool plain) {
  ConvStrip strip;
  strip.weights = h.weights;
  strip.codes = h.codes;
  strip.rounded = h.rounded;
  strip.empty = plain ? nullptr : &h.state->empty;
  for (std::uint32_t i = 0; i < count + 2 * kReach; ++i) {
    const std::uint64_t r = row + i;  // kReach too high, so that it cannot be negative
    const bool inside = r >= begin + kReach && r < h.state->end + kReach;
    strip.rows[i] = inside ? row_at(h, r - kReach) : nullptr;
  }
  strip.row_columns = h.shape.columns;
  strip.form = h.shape.form;
  strip.count = count;
  strip.left = h.shape.left;
  strip.right = right;
  strip.begin = first_column;
  strip.end = right;
  for (std::uint32_t i = 0; i < count; ++i) {
    const std::uint64_t slot = (row + i) % h.shape.rows;
    strip.out[i] = h.s + slot * h.shape.columns;
    strip.filled[i] = h.filled + slot * groups_of(h.shape.columns);
    if (first_column == h.shape.left) std::memset(strip.filled[i], 0, groups_of(h.shape.columns));
  }
  h.state->computed += h.conv_strip(strip);
}

// Brings s up to date for the window from `begin` and the crop up to `right`.
void refresh(const PredictorHistory &h, std::uint64_t begin, std::uint32_t right, bool plain) {
  PredictorState &state = *h.state;
  std::uint32_t edge = right;
  if (right != state.s_right) {
    edge = least(right, state.s_right);
    edge = edge < h.shape.left + kReach ? h.shape.left : edge - kReach;
  }
  for (std::uint64_t row = begin; row < state.end;) {
    const bool keep = !plain && holds(state, begin, row);
    std::uint32_t count = 1;
    while (count < kStripRows && row + count < state.end &&
           (!plain && holds(state, begin, row + count)) == keep) {
      ++count;
    }
    const std::uint32_t first = keep ? edge : h.shape.left;
    if (first < right) compute_rows(h, begin, row, count, first, right, plain);
    row += count;
  }
  state.s_begin = state.s_top = begin;
  state.s_end = state.s_bottom = state.end;
  state.s_right = right;
}

// The s of empty neighbourhoods, by the kernel itself: a crop of 3 columns, with and without rows around.
void find_empty(const PredictorHistory &h) {
  static const float zeros[kFewestColumns] = {};
  for (std::uint32_t missing = 0; missing < 4; ++missing) {
    const void *above = (missing & 1) != 0 ? nullptr : zeros;
    const void *below = (missing & 2) != 0 ? nullptr : zeros;
    const void *rows[5] = {above, above, zeros, below, below};
    float s[kFewestColumns];
    std::uint8_t filled[1];
    ConvStrip strip{};
    strip.weights = h.weights;
    strip.codes = h.codes;
    strip.rounded = h.rounded;
    for (int i = 0; i < 5; ++i) strip.rows[i] = rows[i];
    strip.row_columns = kFewestColumns;
    strip.form = HistoryForm::kFloat;
    strip.count = 1;
    strip.right = strip.end = kFewestColumns;
    strip.out[0] = s;
    strip.filled[0] = filled;
    h.conv_strip(strip);
    float *empty = h.state->empty.s[missing];
    empty[0] = s[1];
    empty[1] = s[0];
    empty[2] = s[2];
  }
}

}  // namespace

std::uint32_t share_bytes(HistoryForm form) {
  switch (form) {
    case HistoryForm::kHalf: return 2;
    case HistoryForm::kRoot8: return 1;
    default: return 4;
  }
}

ConvStripKernel *conv_strip_for(Level level, bool int8, bool multiplies_int8) {
#if defined(__x86_64__)
  if (int8 && multiplies_int8) return conv_strip_vnni;
#else
  static_cast<void>(int8);
  static_cast<void>(multiplies_int8);
#endif
  return kernels(level)->predictor.conv_strip;
}

void predictor_reset(const PredictorHistory &h) {
  *h.state = PredictorState{};
  find_empty(h);
}

void predictor_ask(const PredictorHistory &h, std::uint64_t row, std::uint32_t columns) {
  constexpr std::uint64_t kLine = 64;
  const char *shares = row_at(h, row);
  const std::uint64_t bytes = std::uint64_t{columns} * share_bytes(h.shape.form);
  __builtin_prefetch(h.state, 1);
  for (std::uint64_t at = 0; at < bytes; at += kLine) __builtin_prefetch(shares + at, 1);
}

void predictor_append(const PredictorHistory &h, const float *shares, std::uint32_t columns) {
  PredictorState &state = *h.state;
  if (columns > state.columns) {
    zero_columns(h, state.columns, columns);
    state.columns = columns;
  }
  char *row = row_at(h, state.end);
  h.kernels->store_row(shares, columns, h.shape.floor, h.shape.form, row);
  ++state.end;
  if (state.end - state.oldest > h.shape.slots) state.oldest = state.end - h.shape.slots;
}

bool predictor_can_truncate(const PredictorHistory &h, std::uint64_t rows) {
  const PredictorState &state = *h.state;
  if (rows > state.end - state.oldest) return false;
  return state.oldest == 0 || state.end - rows - state.oldest >= h.shape.rows;
}

void predictor_truncate(const PredictorHistory &h, std::uint32_t rows, std::uint32_t columns) {
  PredictorState &state = *h.state;
  state.end -= rows;
  state.columns = columns;
  if (state.s_bottom <= state.end) return;
  state.s_bottom = state.end;
  state.s_end = least(state.s_end, state.end < kReach ? 0 : state.end - kReach);
}

std::uint32_t predictor_scores(const PredictorHistory &h, bool plain, float *scores) {
  const PredictorState &state = *h.state;
  const std::uint32_t left = h.shape.left;
  const std::uint32_t right = state.columns < h.shape.local ? 0 : state.columns - h.shape.local;
  if (right <= left) return left;
  const std::uint32_t columns = right - left;
  const std::uint64_t begin = window_begin(h);
  const auto rows = static_cast<std::uint32_t>(state.end - begin);
  if (columns < kFewestColumns || rows == 0) {
    for (std::uint32_t j = left; j < right; ++j) scores[j] = 1.0f;
    return right;
  }
  refresh(h, begin, right, plain);
  h.state->total += std::uint64_t{rows} * columns;
  mean_columns(h, begin, rows, right, scores);
  return right;
}

std::uint32_t predictor_rows(const PredictorHistory &h) {
  return static_cast<std::uint32_t>(h.state->end - window_begin(h));
}

float predictor_share(const PredictorHistory &h, std::uint32_t row, std::uint32_t column) {
  const char *at = row_at(h, window_begin(h) + row);
  switch (h.shape.form) {
    case HistoryForm::kHalf:
      return float_of_half(reinterpret_cast<const std::uint16_t *>(at)[column]);
    case HistoryForm::kRoot8: {
      const float root = (static_cast<float>(reinterpret_cast<const std::int8_t *>(at)[column]) + 128.0f) *
                         (1.0f / 255.0f);
      return root * root;
    }
    default: return reinterpret_cast<const float *>(at)[column];
  }
}

}  // namespace kvsift

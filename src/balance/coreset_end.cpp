// The end of a coreset: everything but the lag is halved up to the top, wherever it was.
#include <cstring>

#include "balance/coreset.h"

namespace kvsift {

void CoresetBuilder::close() {
  CoresetState &state = *c_.state;
  const std::uint32_t newest = state.counts[0], lag = c_.shape->lag, levels = c_.shape->levels;
  const std::uint32_t leave = newest > lag ? newest - lag : 0;
  c_.back_up_end();
  // Rows stay where they are: only lists of them are halved.
  std::uint32_t begin = c_.size() - newest;
  const std::uint32_t left_from = begin + leave;
  state.reduced += leave;
  guard(begin, leave);
  std::uint32_t listed = list_rows(begin, leave, 0, places_.guarded.in(base_));
  for (std::uint32_t level = 0; level < levels; ++level) {
    if (level > 0) {
      begin -= state.counts[level];
      listed = list_rows(begin, state.counts[level], listed, nullptr);
    }
    listed = halve_list(listed, level);
    sort_list(listed);
  }
  take_top(listed, newest - leave, left_from);
  state.base = state.reduced;
  state.closed = 1;
}

// By row, which is by token. Lists are short and this happens once.
void CoresetBuilder::sort_list(std::uint32_t count) {
  std::uint32_t *order = places_.order.in(base_);
  float *weight = places_.weight.in(base_);
  for (std::uint32_t i = 1; i < count; ++i) {
    const std::uint32_t row = order[i];
    const float w = weight[i];
    std::uint32_t to = i;
    for (; to > 0 && order[to - 1] > row; --to) {
      order[to] = order[to - 1];
      weight[to] = weight[to - 1];
    }
    order[to] = row;
    weight[to] = w;
  }
}

// The listed rows join the top; behind them come the `newest` tokens at `from`.
void CoresetBuilder::take_top(std::uint32_t kept, std::uint32_t newest, std::uint32_t from) {
  CoresetState &state = *c_.state;
  const std::uint32_t *order = places_.order.in(base_), levels = c_.shape->levels;
  const float *weight = places_.weight.in(base_);
  std::uint32_t *tokens = c_.tokens + state.counts[levels];
  float *weights = c_.weights + state.counts[levels];
  // The i-th row is at least i: nothing is read after it was written.
  for (std::uint32_t i = 0; i < kept; ++i) {
    tokens[i] = tokens[order[i]];
    weights[i] = weight[i];
  }
  std::memmove(tokens + kept, c_.tokens + from, newest * sizeof *tokens);
  std::memmove(weights + kept, c_.weights + from, newest * sizeof *weights);
  for (std::uint32_t level = 1; level < levels; ++level) state.counts[level] = 0;
  state.counts[0] = newest;
  state.counts[levels] += kept;
}

}  // namespace kvsift

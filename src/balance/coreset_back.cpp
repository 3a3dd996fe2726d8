// The way back of a coreset: backups of what lies below its top.
#include <cstring>

#include "balance/coreset.h"

namespace kvsift {

// Tokens halved out of level 0 by the time there are `length`.
std::uint32_t Coreset::reduced_at(const CoresetState &of, std::uint32_t length) const {
  const std::uint32_t before = shape->sinks + shape->lag + of.base;
  return of.base + (length < before ? 0 : (length - before) / shape->group * shape->group);
}

std::uint32_t Coreset::slot_of(const CoresetState &of, std::uint32_t reduced) const {
  return (reduced - of.base) / shape->group % shape->backups;
}

CoresetState Coreset::state_for(std::uint32_t length) const {
  if (state->closed == 0 || length >= end()) return *state;
  CoresetState kept;
  std::memcpy(&kept, before_end, sizeof kept);
  return kept;
}

bool Coreset::can_truncate(std::uint32_t length) const {
  const CoresetState from = state_for(length);
  if (from.base > 0 && length < shape->sinks + from.base) return false;
  const std::uint32_t then = reduced_at(from, length);
  if (then >= from.reduced) return true;
  if (shape->backups == 0) return false;
  CoresetState kept;
  std::memcpy(&kept, slot(slot_of(from, then)), sizeof kept);
  // After an earlier truncation the slot may be empty, or hold a state of later.
  return kept.counts[0] > 0 && kept.reduced == then && kept.base == from.base &&
         (from.reduced - then) / shape->group <= shape->backups;
}

void Coreset::truncate(std::uint32_t length) {
  if (state->closed != 0 && length < end()) restore_lists(before_end);
  const std::uint32_t then = reduced_at(*state, length);
  if (then < state->reduced) restore(slot(slot_of(*state, then)));
  const std::uint32_t from = exact_from(), left = length > from ? length - from : 0;
  if (state->counts[0] > left) state->counts[0] = left;
  forget_after(length);
}

const char *Coreset::restore_lists(const char *from) {
  std::memcpy(state, from, sizeof *state);
  from += sizeof *state;
  const std::uint32_t top = state->counts[shape->levels], count = size() - top;
  std::memcpy(tokens + top, from, count * sizeof *tokens);
  std::memcpy(weights + top, from + shape->rows * sizeof *tokens, count * sizeof *weights);
  return from + shape->rows * (sizeof *tokens + sizeof *weights);
}

void Coreset::restore(const char *from) {
  from = restore_lists(from);
  const std::uint64_t row_bytes = std::uint64_t{shape->dim} * sizeof(F16);
  const std::uint32_t count = size() - state->counts[shape->levels];
  std::memcpy(keys, from, count * row_bytes);
  std::memcpy(values, from + shape->rows * row_bytes, count * row_bytes);
}

char *Coreset::save_lists(char *to) const {
  const std::uint32_t top = state->counts[shape->levels], count = size() - top;
  std::memcpy(to, state, sizeof *state);
  to += sizeof *state;
  std::memcpy(to, tokens + top, count * sizeof *tokens);
  std::memcpy(to + shape->rows * sizeof *tokens, weights + top, count * sizeof *weights);
  return to + shape->rows * (sizeof *tokens + sizeof *weights);
}

void Coreset::back_up() const {
  if (shape->backups == 0) return;
  char *to = save_lists(slot(slot_of(*state, state->reduced)));
  const std::uint64_t row_bytes = std::uint64_t{shape->dim} * sizeof(F16);
  const std::uint32_t count = size() - state->counts[shape->levels];
  std::memcpy(to, keys, count * row_bytes);
  std::memcpy(to + shape->rows * row_bytes, values, count * row_bytes);
}

void Coreset::back_up_end() const { save_lists(before_end); }

// Backups that hold tokens which are gone will be written anew before they are needed.
void Coreset::forget_after(std::uint32_t length) const {
  for (std::uint32_t i = 0; i < shape->backups; ++i) {
    CoresetState kept;
    std::memcpy(&kept, slot(i), sizeof kept);
    if (shape->sinks + kept.reduced + kept.counts[0] > length)
      std::memset(slot(i), 0, sizeof kept);
  }
}

std::uint64_t coreset_end_bytes(const CoresetShape &shape) {
  return sizeof(CoresetState) + shape.rows * (sizeof(std::uint32_t) + sizeof(float));
}

std::uint64_t coreset_backup_bytes(const CoresetShape &shape) {
  const std::uint64_t row = std::uint64_t{shape.dim} * 2 * sizeof(F16);
  return align_up(coreset_end_bytes(shape) + shape.rows * row);
}

void Coreset::replace(const float *weight_of, std::uint32_t range_end, std::uint32_t guarded) {
  const std::uint32_t left = end() - range_end, at = size() - left;
  const std::uint64_t dim = shape->dim, row = at - state->counts[shape->levels];
  std::uint32_t kept = 0;
  for (std::uint32_t i = 0; i < range_end - shape->sinks; ++i) kept += weight_of[i] > 0.0f;
  std::memmove(tokens + kept, tokens + at, left * sizeof *tokens);
  std::memmove(weights + kept, weights + at, left * sizeof *weights);
  std::memmove(keys, keys + row * dim, left * dim * sizeof *keys);
  std::memmove(values, values + row * dim, left * dim * sizeof *values);
  for (std::uint32_t i = 0, to = 0; to < kept; ++i) {
    if (!(weight_of[i] > 0.0f)) continue;
    tokens[to] = shape->sinks + i;
    weights[to++] = weight_of[i];
  }
  *state = CoresetState{};
  state->reduced = state->base = range_end - shape->sinks;
  state->guarded = guarded;
  state->counts[0] = left;
  state->counts[shape->levels] = kept;
  for (std::uint32_t i = 0; i < shape->backups; ++i)
    std::memset(slot(i), 0, sizeof(CoresetState));
}

}  // namespace kvsift

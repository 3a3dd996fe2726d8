#include "balance/stream.h"

#include <cstring>

#include "core/half.h"

namespace kvsift {

namespace {

kvsift_view pool_view(const StreamSettings &s) {
  kvsift_view view{};
  view.type = s.c.row_type;
  view.token_stride = s.row_bytes;
  return view;
}

// A row to the pool, in the pool's type.
void store_row(Stream *stream, const Rows &from, const Offset<std::uint8_t> &pool,
               std::uint32_t row) {
  const std::uint32_t dim = stream->s.plan.c.head_dim;
  std::uint8_t *to = stream->at(pool) + std::uint64_t{row} * stream->s.row_bytes;
  if (from.type == stream->s.c.row_type) {
    std::memcpy(to, from.data, stream->s.row_bytes);
    return;
  }
  float *wide = stream->at(stream->places.wide);
  stream->k().array.widen_rows(from, 1, dim, wide);
  if (stream->s.c.row_type == KVSIFT_F32) {
    std::memcpy(to, wide, stream->s.row_bytes);
  } else if (stream->s.c.row_type == KVSIFT_F16) {
    stream->k().array.to_half(wide, reinterpret_cast<F16 *>(to), dim);
  } else {
    auto *narrow = reinterpret_cast<std::uint16_t *>(to);
    for (std::uint32_t c = 0; c < dim; ++c) narrow[c] = bfloat_of_float(wide[c]);
  }
}

}  // namespace

void start_stream(Stream *stream) {
  stream->key_view = pool_view(stream->s);
  stream->value_view = pool_view(stream->s);
  const std::uint64_t state = stream->places.saved_end - stream->places.saved_begin;
  std::memset(reinterpret_cast<char *>(stream) + stream->places.saved_begin, 0, state);
  stream->moment(0).valid = 1;
  count_references(stream);
}

void push_token(Stream *stream, const Rows &key, const Rows &value) {
  keep_boundary(stream);
  const std::uint32_t token = stream->moment(0).tokens, row = take_row(stream);
  store_row(stream, key, stream->places.keys, row);
  store_row(stream, value, stream->places.values, row);
  stream->at(stream->places.token_of)[row] = token;
  stream->at(stream->places.recent)[token % stream->s.recent_tokens()] = row;
  hold_row(stream, row);
  insert_row(stream, row);
}

namespace {

// Lists of one tree behind what `set` has.
void read_tree(Stream *stream, std::uint32_t tree, kvsift_weighted *set, std::uint32_t *rows,
               float *weights) {
  for (std::uint32_t level = stream->s.levels + 1; level-- > 0;) {
    const StreamEntry *list = stream->list(0, tree, level);
    const auto scale = static_cast<float>(1u << level);
    for (std::uint32_t i = 0; i < stream->count(0, tree, level); ++i) {
      rows[set->count] = list[i].row;
      weights[set->count++] = list[i].weight * scale;
    }
  }
}

}  // namespace

void read_stream(Stream *stream, kvsift_weighted *numerator, kvsift_weighted *denominator) {
  std::uint32_t *rows = stream->at(stream->places.read_rows);
  float *weights = stream->at(stream->places.read_weights);
  const std::uint32_t last = stream->s.trees - 1;
  *numerator = kvsift_weighted{rows, weights, 0, 0};
  for (std::uint32_t tree = 0; tree < (last == 0 ? 1 : last); ++tree)
    read_tree(stream, tree, numerator, rows, weights);
  const StreamEntry *guards = stream->guard_list(0);
  for (std::uint32_t i = 0; i < stream->moment(0).guards; ++i) {
    rows[numerator->count] = guards[i].row;
    weights[numerator->count++] = 1.0f;
  }
  *denominator = *numerator;
  if (!stream->s.theory) return;
  rows += numerator->count;
  weights += numerator->count;
  *denominator = kvsift_weighted{rows, weights, 0, 0};
  read_tree(stream, last, denominator, rows, weights);
}

}  // namespace kvsift

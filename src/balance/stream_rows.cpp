// The pool of rows: taken by the first list that names them, free again when the last lets go.
#include "balance/stream.h"

namespace kvsift {

std::uint32_t take_row(Stream *stream) {
  // The pool holds what all lists can name together, so there always is one.
  const std::uint32_t row = stream->at(stream->places.free_rows)[--stream->free_count];
  stream->at(stream->places.references)[row] = 0;
  return row;
}

void hold_row(Stream *stream, std::uint32_t row) { ++stream->at(stream->places.references)[row]; }

void release_row(Stream *stream, std::uint32_t row) {
  if (--stream->at(stream->places.references)[row] != 0) return;
  stream->at(stream->places.free_rows)[stream->free_count++] = row;
}

namespace {

template <class F>
void for_each_entry(Stream *stream, std::uint32_t m, F f) {
  for (std::uint32_t tree = 0; tree < stream->s.trees; ++tree) {
    for (std::uint32_t level = 0; level <= stream->s.levels; ++level) {
      if (!stream->owns(level)) continue;
      const StreamEntry *list = stream->list(m, tree, level);
      const std::uint32_t count = stream->count(m, tree, level);
      for (std::uint32_t i = 0; i < count; ++i) f(stream, list[i].row);
    }
  }
  const StreamEntry *guards = stream->guard_list(m);
  for (std::uint32_t i = 0; i < stream->moment(m).guards; ++i) f(stream, guards[i].row);
}

}  // namespace

void hold_lists(Stream *stream, std::uint32_t m) { for_each_entry(stream, m, hold_row); }

void release_lists(Stream *stream, std::uint32_t m) { for_each_entry(stream, m, release_row); }

void count_references(Stream *stream) {
  std::uint32_t *references = stream->at(stream->places.references);
  for (std::uint32_t row = 0; row < stream->s.rows; ++row) references[row] = 0;
  for (std::uint32_t m = 0; m < stream->s.moments; ++m)
    if (stream->moment(m).valid != 0) hold_lists(stream, m);
  if (!stream->s.theory) {
    const StreamEntry *top = stream->list(0, 0, stream->s.levels);
    for (std::uint32_t i = 0; i < stream->count(0, 0, stream->s.levels); ++i)
      hold_row(stream, top[i].row);
  }
  const std::uint32_t window = stream->s.recent_tokens(), tokens = stream->moment(0).tokens;
  const std::uint32_t *recent = stream->at(stream->places.recent);
  std::uint32_t first = tokens;
  for (std::uint32_t m = 1; m < stream->s.moments; ++m)
    if (stream->moment(m).valid != 0 && stream->moment(m).tokens < first)
      first = stream->moment(m).tokens;
  for (std::uint32_t token = first; token < tokens; ++token)
    hold_row(stream, recent[token % window]);
  // The lowest free row is taken first.
  stream->free_count = 0;
  for (std::uint32_t row = stream->s.rows; row-- > 0;)
    if (references[row] == 0) stream->at(stream->places.free_rows)[stream->free_count++] = row;
}

}  // namespace kvsift

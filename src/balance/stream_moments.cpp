// Batch boundaries that can be gone back to.
#include <cstring>

#include "balance/stream.h"

namespace kvsift {

namespace {

// Lists and counters of moment `from` over those of `to`; rows are not counted.
void copy_moment(Stream *stream, std::uint32_t to, std::uint32_t from) {
  const StreamSettings &s = stream->s;
  stream->moment(to) = stream->moment(from);
  for (std::uint32_t tree = 0; tree < s.trees; ++tree) {
    for (std::uint32_t level = 0; level <= s.levels; ++level) {
      const std::uint32_t count = stream->count(from, tree, level);
      stream->count(to, tree, level) = count;
      if (!stream->owns(level)) continue;
      std::memcpy(stream->list(to, tree, level), stream->list(from, tree, level),
                  count * sizeof(StreamEntry));
    }
  }
  std::memcpy(stream->guard_list(to), stream->guard_list(from),
              stream->moment(from).guards * sizeof(StreamEntry));
}

std::uint32_t moment_of(const Stream *stream, std::uint32_t batch) {
  return 1 + batch % (stream->s.moments - 1);
}

// Rows of tokens [begin, end) are no longer needed to go back.
void release_recent(Stream *stream, std::uint32_t begin, std::uint32_t end) {
  const std::uint32_t window = stream->s.recent_tokens(),
                      *recent = stream->at(stream->places.recent);
  for (std::uint32_t token = begin; token < end; ++token)
    release_row(stream, recent[token % window]);
}

void forget_moment(Stream *stream, std::uint32_t m) {
  if (stream->moment(m).valid == 0) return;
  release_lists(stream, m);
  stream->moment(m).valid = 0;
}

// The present becomes moment m.
void restore(Stream *stream, std::uint32_t m) {
  const std::uint32_t top = stream->s.levels;
  if (!stream->s.theory) {
    const StreamEntry *list = stream->list(0, 0, top);
    for (std::uint32_t i = stream->count(m, 0, top); i < stream->count(0, 0, top); ++i)
      release_row(stream, list[i].row);
  }
  hold_lists(stream, m);
  release_lists(stream, 0);
  copy_moment(stream, 0, m);
}

}  // namespace

void keep_boundary(Stream *stream) {
  const std::uint32_t tokens = stream->moment(0).tokens, batch_tokens = stream->s.c.batch_tokens;
  if (tokens % batch_tokens != 0) return;
  const std::uint32_t m = moment_of(stream, tokens / batch_tokens);
  if (stream->moment(m).valid != 0 && stream->moment(m).tokens < tokens) {
    // This boundary is the oldest: the tokens up to the next one go with it.
    const std::uint32_t begin = stream->moment(m).tokens;
    release_recent(stream, begin, begin + batch_tokens);
  }
  forget_moment(stream, m);
  copy_moment(stream, m, 0);
  hold_lists(stream, m);
}

bool truncate_stream(Stream *stream, std::uint32_t tokens) {
  const std::uint32_t now = stream->moment(0).tokens, batch_tokens = stream->s.c.batch_tokens;
  if (tokens == now) return true;
  const std::uint32_t boundary = tokens - tokens % batch_tokens;
  const std::uint32_t m = moment_of(stream, boundary / batch_tokens);
  if (stream->moment(m).valid == 0 || stream->moment(m).tokens != boundary) return false;
  restore(stream, m);
  for (std::uint32_t other = 1; other < stream->s.moments; ++other)
    if (stream->moment(other).valid != 0 && stream->moment(other).tokens > boundary)
      forget_moment(stream, other);
  release_recent(stream, tokens, now);
  // What was pushed since the boundary goes in once more.
  const std::uint32_t *recent = stream->at(stream->places.recent);
  for (std::uint32_t token = boundary; token < tokens; ++token)
    insert_row(stream, recent[token % stream->s.recent_tokens()]);
  return true;
}

}  // namespace kvsift

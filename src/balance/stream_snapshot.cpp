// A stream's state to bytes and back.
//
//     | SnapshotHead | moments .. tokens of rows, as they lie |
//     | rows in use, ascending | key and value of each |
#include <algorithm>
#include <cstring>

#include "balance/stream.h"
#include "core/checksum.h"

namespace kvsift {

namespace {

constexpr std::uint64_t kMagic = 0x314d5254535f4c42ull;  // "BL_STRM1"
constexpr std::uint32_t kSnapshotVersion = 2;

struct SnapshotHead {
  std::uint64_t magic;
  std::uint32_t version;
  std::uint32_t rows;      // in use
  std::uint64_t config;    // its checksum
  std::uint64_t bytes;     // of what follows
  std::uint64_t checksum;  // of what follows
};

std::uint64_t state_bytes(const Stream *stream) {
  return stream->places.saved_end - stream->places.saved_begin;
}

std::uint32_t rows_in_use(const Stream *stream) { return stream->s.rows - stream->free_count; }

const char *state_of(const Stream *stream) {
  return reinterpret_cast<const char *>(stream) + stream->places.saved_begin;
}

std::uint64_t checksum_of_config(const Stream *stream) {
  return checksum(&stream->s.c, sizeof stream->s.c);
}

// Bytes of the list of rows in use.
std::uint64_t row_list_bytes(std::uint64_t rows) {
  return (rows * sizeof(std::uint32_t) + 7) / 8 * 8;
}

// An untrusted state, read as a stream of this configuration would have it.
class Candidate {
 public:
  Candidate(const Stream *stream, const std::uint8_t *state, const std::uint32_t *rows,
            std::uint32_t row_count)
      : stream_(stream), s_(stream->s), state_(state), rows_(rows), row_count_(row_count) {}

  bool ok() const {
    const Moment &now = moment(0);
    if (now.valid != 1 || now.tokens > s_.c.max_tokens) return false;
    for (std::uint32_t i = 0; i < row_count_; ++i)
      if (rows_[i] >= s_.rows || (i > 0 && rows_[i] <= rows_[i - 1])) return false;
    std::uint32_t first = now.tokens;
    for (std::uint32_t m = 0; m < s_.moments; ++m) {
      if (moment(m).valid == 0) continue;
      if (!moment_ok(m) || !lists_ok(m) || !guards_ok(m)) return false;
      if (moment(m).tokens < first) first = moment(m).tokens;
    }
    if (!s_.theory && !entries_ok(at(stream_->places.top), counts(0)[s_.levels])) return false;
    const std::uint32_t *recent = at(stream_->places.recent);
    for (std::uint32_t token = first; token < now.tokens; ++token)
      if (!has(recent[token % s_.recent_tokens()])) return false;
    return true;
  }

 private:
  template <class T>
  const T *at(const Offset<T> &place) const {
    return reinterpret_cast<const T *>(state_ + (place.bytes - stream_->places.saved_begin));
  }
  const Moment &moment(std::uint32_t m) const { return at(stream_->places.moments)[m]; }
  const std::uint32_t *counts(std::uint32_t m) const {
    return at(stream_->places.counts) + m * s_.lists();
  }
  bool has(std::uint32_t row) const { return std::binary_search(rows_, rows_ + row_count_, row); }

  bool entries_ok(const StreamEntry *list, std::uint32_t count) const {
    for (std::uint32_t i = 0; i < count; ++i) {
      const float w = list[i].weight;
      if (!(w >= 0.0f) || w - w != 0.0f || !has(list[i].row)) return false;
    }
    return true;
  }

  bool moment_ok(std::uint32_t m) const {
    const std::uint32_t tokens = moment(m).tokens, now = moment(0).tokens,
                        batch = s_.c.batch_tokens;
    if (m == 0) return true;
    return moment(m).valid == 1 && tokens <= now && tokens % batch == 0 &&
           now - tokens <= s_.recent_tokens() && 1 + tokens / batch % (s_.moments - 1) == m;
  }

  bool lists_ok(std::uint32_t m) const {
    const StreamEntry *entries = at(stream_->places.entries) + m * s_.moment_entries();
    const std::uint64_t of_tree = s_.moment_entries() / s_.trees;
    for (std::uint32_t i = 0; i < s_.lists(); ++i) {
      const std::uint32_t tree = i / (s_.levels + 1), level = i % (s_.levels + 1),
                          count = counts(m)[i];
      const bool top = level == s_.levels;
      // Below the top a list at rest has room for what the next halving sends up.
      const std::uint32_t most = level > 0 ? s_.c.batch_tokens / 2 : s_.c.batch_tokens - 1;
      if (count > (top ? s_.top_entries : most)) return false;
      if (top && !s_.theory) continue;
      if (!entries_ok(entries + tree * of_tree + std::uint64_t{level} * s_.c.batch_tokens, count))
        return false;
    }
    return s_.theory || counts(m)[s_.levels] <= counts(0)[s_.levels];
  }

  bool guards_ok(std::uint32_t m) const {
    const StreamEntry *guards = at(stream_->places.guards) + std::uint64_t{m} * s_.guards;
    if (moment(m).guards > s_.guards) return false;
    for (std::uint32_t i = 0; i < moment(m).guards; ++i)
      if (guards[i].weight - guards[i].weight != 0.0f || !has(guards[i].row)) return false;
    return true;
  }

  const Stream *stream_;
  const StreamSettings &s_;
  const std::uint8_t *state_;
  const std::uint32_t *rows_;
  std::uint32_t row_count_;
};

template <class F>
void for_each_row(const Stream *stream, F f) {
  const std::uint32_t *references = stream->at(stream->places.references);
  for (std::uint32_t row = 0; row < stream->s.rows; ++row)
    if (references[row] != 0) f(row);
}

}  // namespace

std::uint64_t snapshot_bytes(const Stream *stream) {
  const std::uint64_t rows = rows_in_use(stream);
  return sizeof(SnapshotHead) + state_bytes(stream) + row_list_bytes(rows) +
         rows * 2 * stream->s.row_bytes;
}

void save_stream(const Stream *stream, std::uint8_t *out) {
  const std::uint64_t row_bytes = stream->s.row_bytes;
  SnapshotHead head{kMagic, kSnapshotVersion, rows_in_use(stream), checksum_of_config(stream), 0,
                    0};
  std::uint8_t *body = out + sizeof head;
  std::memcpy(body, state_of(stream), state_bytes(stream));
  std::uint8_t *list = body + state_bytes(stream), *p = list + row_list_bytes(head.rows);
  std::memset(list, 0, row_list_bytes(head.rows));
  for_each_row(stream, [&](std::uint32_t row) {
    std::memcpy(list, &row, sizeof row);
    std::memcpy(p, stream->at(stream->places.keys) + row * row_bytes, row_bytes);
    std::memcpy(p + row_bytes, stream->at(stream->places.values) + row * row_bytes, row_bytes);
    list += sizeof row;
    p += 2 * row_bytes;
  });
  head.bytes = static_cast<std::uint64_t>(p - body);
  head.checksum = checksum(body, head.bytes);
  std::memcpy(out, &head, sizeof head);
}

namespace {

// Whether the bytes are a whole snapshot of a stream like this one.
kvsift_status check_snapshot(Stream *stream, const std::uint8_t *data, std::uint64_t bytes,
                             SnapshotHead *head) {
  kvsift_error *error = &stream->error;
  if (reinterpret_cast<std::uintptr_t>(data) % alignof(SnapshotHead) != 0) {
    return fail(error, KVSIFT_MISALIGNED, "a snapshot must start at a multiple of ",
                static_cast<std::uint64_t>(alignof(SnapshotHead)));
  }
  if (bytes < sizeof *head)
    return fail(error, KVSIFT_CORRUPT, "a snapshot of ", bytes, " bytes has no header");
  std::memcpy(head, data, sizeof *head);
  if (head->magic != kMagic)
    return fail(error, KVSIFT_CORRUPT, "not a snapshot of a balance stream");
  if (head->version != kSnapshotVersion) {
    return fail(error, KVSIFT_VERSION_MISMATCH, "snapshot version ", head->version, ", this is ",
                kSnapshotVersion);
  }
  if (head->config != checksum_of_config(stream)) {
    return fail(error, KVSIFT_CONFIG_MISMATCH, "the snapshot is of another configuration");
  }
  const std::uint64_t rows = head->rows, held = bytes - sizeof *head;
  const std::uint64_t expected =
      state_bytes(stream) + row_list_bytes(rows) + rows * 2 * stream->s.row_bytes;
  if (rows > stream->s.rows || head->bytes != expected || held < expected) {
    return fail(error, KVSIFT_CORRUPT, "the snapshot holds ", held, " bytes of ", expected);
  }
  if (checksum(data + sizeof *head, expected) != head->checksum) {
    return fail(error, KVSIFT_CORRUPT, "the snapshot's checksum is off");
  }
  return KVSIFT_OK;
}

}  // namespace

kvsift_status load_stream(Stream *stream, const std::uint8_t *data, std::uint64_t bytes) {
  SnapshotHead head;
  const kvsift_status status = check_snapshot(stream, data, bytes, &head);
  if (status != KVSIFT_OK) return status;
  const std::uint8_t *state = data + sizeof head;
  const auto *rows = reinterpret_cast<const std::uint32_t *>(state + state_bytes(stream));
  if (!Candidate(stream, state, rows, head.rows).ok()) {
    return fail(&stream->error, KVSIFT_CORRUPT, "the snapshot's lists are out of range");
  }
  std::memcpy(reinterpret_cast<char *>(stream) + stream->places.saved_begin, state,
              state_bytes(stream));
  const std::uint64_t row_bytes = stream->s.row_bytes;
  const std::uint8_t *p = state + state_bytes(stream) + row_list_bytes(head.rows);
  for (std::uint32_t i = 0; i < head.rows; ++i, p += 2 * row_bytes) {
    std::memcpy(stream->at(stream->places.keys) + rows[i] * row_bytes, p, row_bytes);
    std::memcpy(stream->at(stream->places.values) + rows[i] * row_bytes, p + row_bytes, row_bytes);
  }
  count_references(stream);
  return KVSIFT_OK;
}

}  // namespace kvsift

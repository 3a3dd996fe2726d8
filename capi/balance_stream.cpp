// <kvsift/balance.h>: the stream.
#include <cstring>

#include "balance/stream.h"
#include "balance_checks.h"
#include "overlap.h"

namespace kvsift {
namespace {

Stream *live(kvsift_balance_stream *handle) {
  auto *stream = reinterpret_cast<Stream *>(handle);
  return stream != nullptr && stream->alive == kStreamAlive ? stream : nullptr;
}
const Stream *live(const kvsift_balance_stream *handle) {
  return live(const_cast<kvsift_balance_stream *>(handle));
}

kvsift_status settle(const kvsift_balance_stream_config *config, StreamSettings *settings) {
  if (config == nullptr) return KVSIFT_INVALID_ARGUMENT;
  if (config->struct_size < sizeof *config ||
      config->balance.struct_size < sizeof config->balance)
    return KVSIFT_INVALID_STRUCT_SIZE;
  return settle_stream(*config, settings);
}

kvsift_status check_arena(const void *arena, std::uint64_t bytes, std::uint64_t needed,
                          kvsift_error *error) {
  if (arena == nullptr) return fail(error, KVSIFT_INVALID_ARGUMENT, "arena is null");
  if (reinterpret_cast<std::uintptr_t>(arena) % KVSIFT_ARENA_ALIGNMENT != 0) {
    return fail(error, KVSIFT_MISALIGNED, "arena must start at a multiple of ",
                KVSIFT_ARENA_ALIGNMENT);
  }
  if (bytes < needed) {
    return fail(error, KVSIFT_ARENA_TOO_SMALL, "arena is ", bytes, " bytes, must be ", needed);
  }
  return KVSIFT_OK;
}

// Views of `tokens` tokens, finite throughout.
kvsift_status check_push(Stream *stream, const HeadRows &keys, const HeadRows &values,
                         std::uint32_t tokens) {
  const std::uint32_t dim = stream->s.plan.c.head_dim;
  const kvsift_range range{0, tokens};
  kvsift_error *error = &stream->error;
  kvsift_status status = check_balance_rows(stream->k(), keys, range, dim, "key", error);
  if (status == KVSIFT_OK)
    status = check_balance_rows(stream->k(), values, range, dim, "value", error);
  return status;
}

}  // namespace
}  // namespace kvsift

using namespace kvsift;

kvsift_status kvsift_balance_stream_config_init(kvsift_balance_stream_config *config,
                                                uint32_t form) {
  if (config == nullptr || form > KVSIFT_BALANCE_RELATIVE || form == KVSIFT_BALANCE_PERMUTATION)
    return KVSIFT_INVALID_ARGUMENT;
  if (config->struct_size < sizeof *config) return KVSIFT_INVALID_STRUCT_SIZE;
  kvsift_balance_stream_config c{};
  c.struct_size = config->struct_size;
  c.batch_tokens = 256;
  c.max_tokens = KVSIFT_MAX_TOKENS;
  c.rollback_batches = 1;
  c.buckets = 8;
  c.row_type = KVSIFT_F16;
  c.balance.struct_size = sizeof c.balance;
  kvsift_balance_config_init(&c.balance, form);
  *config = c;
  return KVSIFT_OK;
}

kvsift_status kvsift_balance_stream_arena_size(const kvsift_balance_stream_config *config,
                                               uint64_t *bytes) {
  StreamSettings settings;
  const kvsift_status status = settle(config, &settings);
  if (status != KVSIFT_OK) return status;
  if (bytes == nullptr)
    return fail(config->balance.error, KVSIFT_INVALID_ARGUMENT, "bytes is null");
  Layout layout;
  lay_out_stream(&layout, settings);
  *bytes = layout.used();
  return layout.check(config->balance.error);
}

kvsift_status kvsift_balance_stream_create(const kvsift_balance_stream_config *config, void *arena,
                                           uint64_t bytes, kvsift_balance_stream **stream) {
  if (stream == nullptr) return KVSIFT_INVALID_ARGUMENT;
  *stream = nullptr;
  StreamSettings settings;
  kvsift_status status = settle(config, &settings);
  if (status != KVSIFT_OK) return status;
  Layout layout(bytes);
  const StreamPlaces places = lay_out_stream(&layout, settings);
  status = layout.check(config->balance.error);
  if (status == KVSIFT_OK) status = check_arena(arena, bytes, layout.used(), config->balance.error);
  if (status != KVSIFT_OK) return status;
  auto *s = static_cast<Stream *>(arena);
  std::memset(arena, 0, sizeof *s);
  s->alive = kStreamAlive;
  s->bytes = layout.used();
  s->s = settings;
  s->places = places;
  s->level = best_level();
  start_stream(s);
  *stream = reinterpret_cast<kvsift_balance_stream *>(s);
  return KVSIFT_OK;
}

kvsift_status kvsift_balance_stream_push(kvsift_balance_stream *handle, const kvsift_view *keys,
                                         const kvsift_view *values, uint32_t head,
                                         uint32_t tokens) {
  Stream *stream = live(handle);
  if (stream == nullptr) return KVSIFT_INVALID_ARGUMENT;
  if (tokens == 0) return KVSIFT_OK;
  const std::uint32_t seen = stream->moment(0).tokens;
  if (tokens > stream->s.c.max_tokens - seen) {
    return fail(&stream->error, KVSIFT_CAPACITY, "tokens is ", tokens, ", the stream is at ", seen, " of max_tokens ",
                stream->s.c.max_tokens);
  }
  kvsift_status status = check_balance_view(keys, "keys", &stream->error);
  if (status == KVSIFT_OK) status = check_balance_view(values, "values", &stream->error);
  if (status != KVSIFT_OK) return status;
  const HeadRows key_rows{keys, nullptr, 0, head}, value_rows{values, nullptr, 0, head};
  status = check_push(stream, key_rows, value_rows, tokens);
  if (status != KVSIFT_OK) return status;
  for (std::uint32_t i = 0; i < tokens; ++i) {
    std::uint32_t one = 1;
    push_token(stream, key_rows.stretch(i, &one), value_rows.stretch(i, &one));
  }
  return KVSIFT_OK;
}

kvsift_status kvsift_balance_stream_read(kvsift_balance_stream *handle,
                                         kvsift_balance_stream_view *view) {
  Stream *stream = live(handle);
  if (stream == nullptr) return KVSIFT_INVALID_ARGUMENT;
  if (view == nullptr) return fail(&stream->error, KVSIFT_INVALID_ARGUMENT, "view is null");
  if (view->struct_size < sizeof *view) {
    return fail(&stream->error, KVSIFT_INVALID_STRUCT_SIZE, "view->struct_size is ", view->struct_size);
  }
  kvsift_balance_stream_view v{};
  v.struct_size = view->struct_size;
  v.cache.struct_size = sizeof v.cache;
  v.cache.tokens = stream->s.rows;
  v.cache.keys = stream->key_view;
  v.cache.values = stream->value_view;
  v.cache.keys.data = stream->at(stream->places.keys);
  v.cache.values.data = stream->at(stream->places.values);
  v.tokens = stream->at(stream->places.token_of);
  read_stream(stream, &v.numerator, &v.denominator);
  *view = v;
  return KVSIFT_OK;
}

kvsift_status kvsift_balance_stream_count(const kvsift_balance_stream *handle, uint32_t *tokens,
                                          uint32_t *rows, uint32_t *max_rows) {
  const Stream *stream = live(handle);
  if (stream == nullptr) return KVSIFT_INVALID_ARGUMENT;
  if (tokens != nullptr) *tokens = stream->moment(0).tokens;
  if (rows != nullptr) *rows = stream->s.rows - stream->free_count;
  if (max_rows != nullptr) *max_rows = stream->s.rows;
  return KVSIFT_OK;
}

kvsift_status kvsift_balance_stream_truncate(kvsift_balance_stream *handle, uint32_t tokens) {
  Stream *stream = live(handle);
  if (stream == nullptr) return KVSIFT_INVALID_ARGUMENT;
  const std::uint32_t seen = stream->moment(0).tokens;
  if (tokens > seen) {
    return fail(&stream->error, KVSIFT_INVALID_ARGUMENT, "cannot truncate to ", tokens,
                " tokens of ", seen);
  }
  if (truncate_stream(stream, tokens)) return KVSIFT_OK;
  return fail(&stream->error, KVSIFT_ROLLBACK, "token ", tokens, " is further back than ",
              stream->s.c.rollback_batches, " batches of ", stream->s.c.batch_tokens, " before ",
              seen);
}

kvsift_status kvsift_balance_stream_fork(const kvsift_balance_stream *handle, void *arena,
                                         uint64_t bytes, kvsift_balance_stream **copy) {
  Stream *stream = live(const_cast<kvsift_balance_stream *>(handle));
  if (copy != nullptr) *copy = nullptr;
  if (stream == nullptr) return KVSIFT_INVALID_ARGUMENT;
  if (copy == nullptr) return fail(&stream->error, KVSIFT_INVALID_ARGUMENT, "copy is null");
  const kvsift_status status = check_arena(arena, bytes, stream->bytes, &stream->error);
  if (status != KVSIFT_OK) return status;
  if (overlap(arena, stream->bytes, stream, stream->bytes)) {
    return fail(&stream->error, KVSIFT_INVALID_ARGUMENT, "arena overlaps the stream's own");
  }
  std::memcpy(arena, stream, stream->bytes);
  static_cast<Stream *>(arena)->error = kvsift_error{};
  *copy = static_cast<kvsift_balance_stream *>(arena);
  return KVSIFT_OK;
}

kvsift_status kvsift_balance_stream_snapshot_size(const kvsift_balance_stream *handle,
                                                  uint64_t *bytes) {
  const Stream *stream = live(handle);
  if (stream == nullptr || bytes == nullptr) return KVSIFT_INVALID_ARGUMENT;
  *bytes = snapshot_bytes(stream);
  return KVSIFT_OK;
}

kvsift_status kvsift_balance_stream_snapshot_save(const kvsift_balance_stream *handle, void *buffer,
                                                  uint64_t bytes, uint64_t *written) {
  Stream *stream = live(const_cast<kvsift_balance_stream *>(handle));
  if (stream == nullptr) return KVSIFT_INVALID_ARGUMENT;
  if (buffer == nullptr) return fail(&stream->error, KVSIFT_INVALID_ARGUMENT, "buffer is null");
  const std::uint64_t needed = snapshot_bytes(stream);
  if (bytes < needed) {
    return fail(&stream->error, KVSIFT_ARENA_TOO_SMALL, "buffer is ", bytes,
                " bytes, the snapshot needs ", needed);
  }
  if (overlap(buffer, needed, stream, stream->bytes)) {
    return fail(&stream->error, KVSIFT_INVALID_ARGUMENT, "buffer overlaps the stream's arena");
  }
  save_stream(stream, static_cast<std::uint8_t *>(buffer));
  if (written != nullptr) *written = needed;
  return KVSIFT_OK;
}

kvsift_status kvsift_balance_stream_snapshot_load(kvsift_balance_stream *handle, const void *buffer,
                                                  uint64_t bytes) {
  Stream *stream = live(handle);
  if (stream == nullptr) return KVSIFT_INVALID_ARGUMENT;
  if (buffer == nullptr) return fail(&stream->error, KVSIFT_INVALID_ARGUMENT, "buffer is null");
  return load_stream(stream, static_cast<const std::uint8_t *>(buffer), bytes);
}

kvsift_status kvsift_balance_stream_stats(const kvsift_balance_stream *handle,
                                          kvsift_balance_stats *stats) {
  const Stream *stream = live(handle);
  if (stream == nullptr || stats == nullptr) return KVSIFT_INVALID_ARGUMENT;
  if (stats->struct_size < sizeof *stats) return KVSIFT_INVALID_STRUCT_SIZE;
  const BalanceCounters &c = stream->moment(0).counters;
  *stats = kvsift_balance_stats{static_cast<std::uint32_t>(sizeof *stats),
                                0,
                                c.tokens,
                                c.groups,
                                c.failures,
                                c.saturated,
                                stream->moment(0).guards,
                                c.dropped};
  return KVSIFT_OK;
}

const char *kvsift_balance_stream_last_error(const kvsift_balance_stream *handle) {
  const Stream *stream = live(handle);
  return stream == nullptr ? "" : stream->error.message;
}

// Trees of levels: how a token enters, and how full batches are halved and go up.
#include "balance/stream.h"
#include "core/half.h"

namespace kvsift {

namespace {

// Rows of the pool as a head's rows.
BalanceSource pool_of(Stream *stream, bool values_count) {
  stream->key_view.data = stream->at(stream->places.keys);
  stream->value_view.data = stream->at(stream->places.values);
  return BalanceSource{HeadRows{&stream->key_view, nullptr, 0, 0},
                       HeadRows{&stream->value_view, nullptr, 0, 0},
                       stream->at(stream->places.token_of), stream->s.c.head, values_count};
}

bool is_denominator(const Stream *stream, std::uint32_t tree) {
  return stream->s.theory && tree + 1 == stream->s.trees;
}

// Weights of what stays, so that they sum to half of what came: relative to the next level they
// stand for all of it.
float share_of(const Stream *stream, float before, const float *weight, std::uint32_t count) {
  if (stream->s.plan.c.weights == KVSIFT_BALANCE_PUBLISHED) return 0.5f;
  float after = 0.0f;
  for (std::uint32_t i = 0; i < count; ++i) after += weight[i];
  return 0.5f * before / after;
}

void append(Stream *stream, std::uint32_t tree, std::uint32_t level, StreamEntry entry) {
  std::uint32_t &count = stream->count(0, tree, level);
  stream->list(0, tree, level)[count++] = entry;
}

// Halves a list; what stays is appended to the next.
void reduce(Stream *stream, std::uint32_t tree, std::uint32_t level) {
  StreamEntry *list = stream->list(0, tree, level);
  std::uint32_t &count = stream->count(0, tree, level), *order = stream->at(stream->places.order);
  float *weight = stream->at(stream->places.weight), before = 0.0f;
  for (std::uint32_t i = 0; i < count; ++i) {
    order[i] = list[i].row;
    weight[i] = list[i].weight;
    before += list[i].weight;
  }
  Halver halver(stream->s.plan, stream->k(), stream->places.halver, stream,
                &stream->moment(0).counters);
  const bool denominator = is_denominator(stream, tree);
  const std::uint32_t draw = level | static_cast<std::uint32_t>(denominator) << 8;
  const std::uint32_t kept = halver.halve(pool_of(stream, !denominator), order, weight, count,
                                          stream->s.c.batch_tokens, draw, nullptr);
  const float share = share_of(stream, before, weight, kept);
  for (std::uint32_t i = 0; i < kept; ++i) {
    hold_row(stream, order[i]);
    append(stream, tree, level + 1, StreamEntry{order[i], weight[i] * share});
  }
  for (std::uint32_t i = 0; i < count; ++i) release_row(stream, list[i].row);
  count = 0;
}

void insert_into(Stream *stream, std::uint32_t tree, std::uint32_t row) {
  hold_row(stream, row);
  append(stream, tree, 0, StreamEntry{row, 1.0f});
  if (stream->count(0, tree, 0) < stream->s.c.batch_tokens) return;
  if (stream->s.guards > 0) guard_batch(stream);
  reduce(stream, tree, 0);
  for (std::uint32_t level = 1; level < stream->s.levels; ++level) {
    if (stream->count(0, tree, level) <= stream->s.c.batch_tokens / 2) return;
    reduce(stream, tree, level);
  }
}

void drop_tree(Stream *stream, std::uint32_t tree) {
  Moment &now = stream->moment(0);
  for (std::uint32_t level = 0; level <= stream->s.levels; ++level) {
    const StreamEntry *list = stream->list(0, tree, level);
    std::uint32_t &count = stream->count(0, tree, level);
    for (std::uint32_t i = 0; i < count; ++i) release_row(stream, list[i].row);
    now.counters.dropped += std::uint64_t{count} << level;
    count = 0;
  }
}

// Exponent of a row's squared norm, halved: which power of two its norm has. False for a zero row.
bool bucket_of(Stream *stream, std::uint32_t row, std::int32_t *bucket) {
  const std::uint32_t dim = stream->s.plan.c.head_dim;
  float *wide = stream->at(stream->places.wide), square = 0.0f;
  const BalanceSource pool = pool_of(stream, true);
  std::uint32_t one = 1;
  stream->k().array.widen_rows(pool.values.stretch(row, &one), 1, dim, wide);
  const Rows again{reinterpret_cast<const std::uint8_t *>(wide), KVSIFT_F32, 0, nullptr, 0};
  stream->k().attention.dot_rows(wide, 1, again, 1, dim, 1.0f, &square, 1);
  if (!(square >= 0x1p-126f)) return false;
  const auto exponent = static_cast<std::int32_t>(bits_of_float(square) >> 23) - 127;
  *bucket = exponent >> 1;
  return true;
}

std::uint32_t tree_of(const Stream *stream, std::int32_t bucket) {
  const auto buckets = static_cast<std::int32_t>(stream->s.c.buckets);
  return static_cast<std::uint32_t>(((bucket % buckets) + buckets) % buckets);
}

// Algorithm 1: one tree for each power of two of |v|, the largest `buckets` of them.
void insert_by_norm(Stream *stream, std::uint32_t row) {
  Moment &now = stream->moment(0);
  const auto buckets = static_cast<std::int32_t>(stream->s.c.buckets);
  std::int32_t bucket = 0;
  if (!bucket_of(stream, row, &bucket)) return;
  if (now.any_bucket == 0 || bucket > now.top_bucket) {
    const std::int32_t oldest = now.any_bucket == 0 ? bucket : now.top_bucket;
    for (std::int32_t b = oldest - buckets + 1; b <= bucket - buckets && b <= oldest; ++b)
      drop_tree(stream, tree_of(stream, b));
    now.top_bucket = bucket;
    now.any_bucket = 1;
  }
  if (bucket <= now.top_bucket - buckets) {
    ++now.counters.dropped;
    return;
  }
  insert_into(stream, tree_of(stream, bucket), row);
}

}  // namespace

void insert_row(Stream *stream, std::uint32_t row) {
  ++stream->moment(0).tokens;
  if (!stream->s.theory) return insert_into(stream, 0, row);
  insert_by_norm(stream, row);
  insert_into(stream, stream->s.trees - 1, row);
}

}  // namespace kvsift

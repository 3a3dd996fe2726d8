// Needle guard of a stream: the most unlike tokens so far, in bounded room.
#include <algorithm>

#include "balance/guard.h"
#include "balance/stream.h"

namespace kvsift {

namespace {

// Marks tokens of the full batch; leaves how unlike they are in the scratch weights.
void mark_batch(Stream *stream, const StreamEntry *list, std::uint32_t count) {
  std::uint32_t *order = stream->at(stream->places.order);
  float *product = stream->at(stream->places.weight);
  const BalancePlan &plan = stream->s.plan;
  constexpr std::uint32_t kMost = KVSIFT_BALANCE_MAX_GROUP;
  for (std::uint32_t i = 0; i < count; ++i) order[i] = list[i].row;
  stream->key_view.data = stream->at(stream->places.keys);
  const GuardKeys keys{HeadRows{&stream->key_view, nullptr, 0, 0}, plan.c.head_dim, order, 0,
                       count};
  guard_products(stream->k(), keys, count < kMost ? count : kMost, product);
  mark_unlike(product, count, plan.c.guard_margin, stream->s.guards, order,
              stream->at(stream->places.marks));
}

}  // namespace

void guard_batch(Stream *stream) {
  StreamEntry *list = stream->list(0, 0, 0), *guards = stream->guard_list(0),
              *candidates = stream->at(stream->places.candidates);
  std::uint32_t &count = stream->count(0, 0, 0), &guarded = stream->moment(0).guards;
  mark_batch(stream, list, count);
  const float *product = stream->at(stream->places.weight);
  const std::int8_t *marks = stream->at(stream->places.marks);
  const std::uint32_t *token_of = stream->at(stream->places.token_of);
  std::uint32_t found = guarded, open = 0;
  std::copy(guards, guards + guarded, candidates);
  for (std::uint32_t i = 0; i < count; ++i) {
    if (marks[i] != 0) candidates[found++] = StreamEntry{list[i].row, product[i]};
    else list[open++] = list[i];
  }
  const std::uint32_t stay = found < stream->s.guards ? found : stream->s.guards;
  if (stay < found) {
    std::sort(candidates, candidates + found, [token_of](StreamEntry a, StreamEntry b) {
      return a.weight < b.weight || (a.weight == b.weight && token_of[a.row] < token_of[b.row]);
    });
  }
  std::copy(candidates, candidates + stay, guards);
  guarded = stay;
  // No more are crowded out than came in: the batch has room for them.
  for (std::uint32_t i = stay; i < found; ++i) list[open++] = StreamEntry{candidates[i].row, 1.0f};
  count = open;
}

}  // namespace kvsift

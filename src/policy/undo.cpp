#include "policy/undo.h"

#include <cstring>

#include "methods/method.h"

namespace kvsift {
namespace {

std::uint64_t slot_bytes(const UnitPlaces &p) { return p.step_end - p.step_begin; }

// Slot of the `back`-th newest entry, from 0.
std::uint32_t slot_at(const HeadState &head, std::uint32_t back) {
  const std::uint32_t size = head.settings().c.rollback_tokens;
  return (head.unit->undo_next + size - 1 - back) % size;
}

// How far back the entry for `tokens` lies; undo_count where there is none.
std::uint32_t find(const HeadState &head, std::uint32_t tokens) {
  const std::uint32_t *lengths = head.at<std::uint32_t>(head.places().undo_tokens);
  std::uint32_t back = 0;
  while (back < head.unit->undo_count && lengths[slot_at(head, back)] != tokens) ++back;
  return back;
}

// Whether step state has changed since the cache had `tokens` tokens.
bool has_moved(const HeadState &head, std::uint32_t tokens) {
  const Unit &unit = *head.unit;
  const bool evicted = method_of(head.settings().c.method)->evict != nullptr && unit.selected_for > tokens;
  return unit.keys_seen > tokens || unit.rows_seen > tokens || evicted;
}

}  // namespace

void remember(const HeadState &head, std::uint32_t tokens) {
  const UnitPlaces &p = head.places();
  const std::uint32_t size = head.settings().c.rollback_tokens;
  Unit &unit = *head.unit;
  if (size == 0 || slot_bytes(p) == 0) return;
  std::uint32_t *lengths = head.at<std::uint32_t>(p.undo_tokens);
  if (unit.undo_count > 0 && lengths[slot_at(head, 0)] >= tokens) return;
  std::memcpy(head.at<char>(p.undo) + unit.undo_next * slot_bytes(p), head.at<char>(p.step_begin), slot_bytes(p));
  lengths[unit.undo_next] = tokens;
  unit.undo_next = (unit.undo_next + 1) % size;
  if (unit.undo_count < size) ++unit.undo_count;
}

bool can_restore(const HeadState &head, std::uint32_t tokens) {
  if (!has_moved(head, tokens) || slot_bytes(head.places()) == 0) return true;
  return find(head, tokens) < head.unit->undo_count;
}

void restore(const HeadState &head, std::uint32_t tokens) {
  const UnitPlaces &p = head.places();
  Unit &unit = *head.unit;
  if (has_moved(head, tokens) && slot_bytes(p) > 0) {
    const std::uint32_t back = find(head, tokens);
    const std::uint32_t slot = slot_at(head, back);
    std::memcpy(head.at<char>(p.step_begin), head.at<char>(p.undo) + slot * slot_bytes(p), slot_bytes(p));
    // Entries of this length and beyond describe tokens that are gone.
    unit.undo_next = slot;
    unit.undo_count -= back + 1;
  }
  if (unit.keys_seen > tokens) unit.keys_seen = tokens;
  if (unit.rows_seen > tokens) unit.rows_seen = tokens;
  if (unit.selected_for > tokens) unit.selected_for = 0;
}

}  // namespace kvsift

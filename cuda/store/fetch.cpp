#include "cuda/store/mover.h"
#include "cuda/store/slots.h"
#include "cuda/store/steps.h"

namespace kvsift {
namespace {

// Calls use(head, block) for the blocks of each list, ascending; stops where it returns false. Lists of the query heads of
// one KV head name blocks again.
template <class Use>
bool for_each_block(const CudaStore &store, std::uint32_t layer, const kvsift_selection &selection, Use use) {
  const std::uint32_t group = selection.lists / store.g.kv_heads, end = store.layers[layer].tokens;
  for (std::uint32_t list = 0; list < selection.lists; ++list) {
    const kvsift_range *ranges = selection.ranges + std::uint64_t{list} * selection.range_stride;
    std::uint32_t next = 0;
    for (std::uint32_t r = 0; r < selection.range_counts[list] && ranges[r].begin < end; ++r) {
      const std::uint32_t last = ((ranges[r].end < end ? ranges[r].end : end) - 1) >> store.g.block_shift;
      std::uint32_t block = ranges[r].begin >> store.g.block_shift;
      for (block = block < next ? next : block; block <= last; ++block) {
        if (!use(list / group, block)) return false;
      }
      next = last + 1;
    }
  }
  return true;
}

// Marks what the selection has, so that making room does not take it away. Whether something is missing. Where it is used, by
// what `use` moves, the table comes to know of what was fetched behind.
bool touch_present(CudaStore *store, std::uint32_t index, const kvsift_selection &selection, Mover *use) {
  CudaLayer *layer = store->layers + index;
  bool missing = false;
  for_each_block(*store, index, selection, [&](std::uint32_t head, std::uint32_t block) {
    const std::uint32_t record = store->record(head, block);
    const std::int32_t at = *store->entry(index, record);
    missing = missing || at == kNotHere;
    if (at == kNotHere) return true;
    CudaSlot &slot = store->slot(*layer, slot_of(at));
    if (slot.call == store->call) return true;
    touch(store, layer, slot_of(at));
    if (use == nullptr) return true;
    if (settle(store, index, record)) use->tell(Move{record, slot_of(at), kNoSlot});
    ++(slot.prefetched != 0 ? store->stats.prefetched : store->stats.hits);
    slot.prefetched = 0;
    return true;
  });
  return missing;
}

kvsift_status too_few(CudaStore *store, std::uint32_t index) {
  return fail(&store->error, KVSIFT_CAPACITY, "layer ", index, ": its ", store->layers[index].slots,
              " slots in fast memory are too few for what is wanted at once and the pinned tokens");
}

// What resolve fetches: up to the cap, and the pinned blocks, so that they are there once the stream has come so far; the
// others behind, as far as there are slots.
struct Fetches {
  Mover *in_time, *behind;
  bool all_placed = true, left_out = false;
};

void fetch_missing(CudaStore *store, std::uint32_t index, const kvsift_selection &selection, Fetches *fetches) {
  CudaLayer *layer = store->layers + index;
  std::uint32_t late = 0;
  fetches->all_placed = for_each_block(*store, index, selection, [&](std::uint32_t head, std::uint32_t block) {
    Move move;
    std::int32_t *entry = store->entry(index, store->record(head, block));
    if (*entry != kNotHere) return true;
    const bool in_time = late < store->late_blocks || pinned(store->g, *layer, block);
    if (!take_slot(store, index, head, block, &move)) {
      fetches->left_out = fetches->left_out || !in_time;
      return !in_time;
    }
    if (in_time) {
      ++late;
      ++store->stats.late;
      fetches->in_time->fetch(move);
      return true;
    }
    fetches->left_out = true;
    *entry = filled_behind(move.slot);
    store->slot(*layer, move.slot).prefetched = 1;
    ++store->stats.blocks_prefetched;
    fetches->behind->fetch(move);
    return true;
  });
}

}  // namespace

kvsift_status prefetch(CudaStore *store, std::uint32_t index, const kvsift_selection &selection, CUstream stream) {
  CudaLayer *layer = store->layers + index;
  ++store->call;
  ++layer->prefetches;
  if (!touch_present(store, index, selection, nullptr)) return KVSIFT_OK;
  // Slots that go may be read by what is in the stream.
  if (kvsift_status s = order_streams(store, stream, store->used, store->copies)) return s;
  Mover mover(store, index, store->copies);
  bool room = true;
  for_each_block(*store, index, selection, [&](std::uint32_t head, std::uint32_t block) {
    Move move;
    if (*store->entry(index, store->record(head, block)) != kNotHere) return true;
    room = room && take_slot(store, index, head, block, &move);
    if (!room) {
      ++store->stats.prefetch_unplaced;
      return true;
    }
    store->slot(*layer, move.slot).prefetched = 1;
    ++store->stats.blocks_prefetched;
    mover.fetch(move);
    return true;
  });
  if (kvsift_status s = mover.finish()) return s;
  return check_driver(store, store->device.driver.event_record(layer->fetched, store->copies), "cuEventRecord");
}

kvsift_status resolve(CudaStore *store, std::uint32_t index, kvsift_selection *selection, CUstream stream) {
  const Driver &d = store->device.driver;
  CudaLayer *layer = store->layers + index;
  ++store->call;
  if (kvsift_status s = check_driver(store, d.stream_wait(stream, layer->fetched, 0), "cuStreamWaitEvent")) return s;
  Mover in_time(store, index, stream), behind(store, index, store->copies, true);
  if (!touch_present(store, index, *selection, &in_time)) return in_time.finish();
  if (kvsift_status s = check_driver(store, d.stream_wait(stream, layer->written, 0), "cuStreamWaitEvent")) return s;
  if (store->late_blocks != KVSIFT_STORE_NO_LIMIT) {
    // Slots that go to what is fetched behind may be read by what is in the stream.
    if (kvsift_status s = order_streams(store, stream, store->used, store->copies)) return s;
  }
  Fetches fetches{&in_time, &behind};
  fetch_missing(store, index, *selection, &fetches);
  if (kvsift_status s = in_time.finish()) return s;
  if (kvsift_status s = behind.finish()) return s;
  if (fetches.left_out) {
    const CUresult marked = d.event_record(layer->fetched, store->copies);
    if (kvsift_status s = check_driver(store, marked, "cuEventRecord")) return s;
  }
  if (!fetches.all_placed) return too_few(store, index);
  if (!fetches.left_out) return KVSIFT_OK;
  return reduce(store->g, store->entry(index, 0), store->reduced, selection, &store->stats.dropped, &store->error);
}

void describe_cache(const CudaStore &store, std::uint32_t index, kvsift_cache *cache) {
  const Geometry &g = store.g;
  const CudaLayer &layer = store.layers[index];
  kvsift_view view{};
  view.type = g.storage;
  view.token_stride = g.row_bytes;
  view.page_stride = g.slot_bytes;
  view.data = store.slots + layer.first_slot * g.slot_bytes;
  if (g.storage == KVSIFT_I8) {
    view.scale_token_stride = sizeof(float);
    view.scale_page_stride = g.slot_bytes;
  }
  const std::uint32_t size = cache->struct_size;
  *cache = kvsift_cache{};
  cache->struct_size = size;
  cache->tokens = layer.tokens;
  cache->keys = cache->values = view;
  cache->values.data = static_cast<const char *>(view.data) + g.keys_bytes;
  if (g.storage == KVSIFT_I8) {
    cache->keys.scales = reinterpret_cast<const float *>(static_cast<const char *>(view.data) + g.scales_at);
    cache->values.scales = cache->keys.scales + g.block_tokens;
  }
  cache->block_table = store.tables + store.first_record(index);
  cache->page_tokens = g.block_tokens;
  cache->block_table_stride = g.blocks;
}

}  // namespace kvsift

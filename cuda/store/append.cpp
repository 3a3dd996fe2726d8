#include "cuda/store/mover.h"
#include "cuda/store/slots.h"
#include "cuda/store/steps.h"

namespace kvsift {
namespace {

constexpr std::uint32_t kStretchMost = 64;

// Part of an append, all heads: tokens [begin, end) of the cache, whole blocks but for its ends.
struct Stretch {
  std::uint32_t begin, end, first_block, last_block;
};

StoreAppendArgs rows_of(const CudaStore &store, std::uint32_t index, const kvsift_view &keys, const kvsift_view &values) {
  const Geometry &g = store.g;
  StoreAppendArgs args{};
  args.slots = store.slots + store.layers[index].first_slot * g.slot_bytes;
  args.table = store.tables + store.first_record(index);
  args.fault = store.fault_seen;
  args.keys = keys;
  args.values = values;
  args.slot_bytes = g.slot_bytes;
  args.row_bytes = g.row_bytes;
  args.keys_bytes = g.keys_bytes;
  args.scales_at = g.scales_at;
  args.storage = g.storage;
  args.dim = g.head_dim;
  args.layer = index;
  args.block_shift = g.block_shift;
  args.blocks = g.blocks;
  return args;
}

// As many blocks as are sure to find slots beside the pinned ones, and leave most of the fast tier alone.
std::uint32_t stretch_blocks(const CudaStore &store, const CudaLayer &layer) {
  const Geometry &g = store.g;
  const std::uint32_t kept = ((g.sink_tokens + g.block_tokens - 1) >> g.block_shift) +
                             ((g.local_tokens + g.block_tokens - 1) >> g.block_shift) + 1;
  const std::uint32_t all = layer.slots / g.kv_heads, room = all > kept ? all - kept : 1;
  const std::uint32_t most = room < all / 4 ? room : all / 4;
  return most < 1 ? 1 : most < kStretchMost ? most : kStretchMost;
}

Stretch next_stretch(const CudaStore &store, const CudaLayer &layer, std::uint32_t end) {
  const std::uint32_t shift = store.g.block_shift;
  Stretch stretch{layer.tokens, end, layer.tokens >> shift, 0};
  const std::uint64_t limit = (std::uint64_t{stretch.first_block} + stretch_blocks(store, layer)) << shift;
  if (limit < end) stretch.end = static_cast<std::uint32_t>(limit);
  stretch.last_block = (stretch.end - 1) >> shift;
  return stretch;
}

// The slot that a block has or gets, open.
bool open_slot(CudaStore *store, std::uint32_t index, std::uint32_t head, std::uint32_t block, Move *move) {
  CudaLayer *layer = store->layers + index;
  const std::uint32_t record = store->record(head, block);
  settle(store, index, record);
  const std::int32_t at = *store->entry(index, record);
  *move = Move{record, static_cast<std::uint32_t>(at), kNoSlot};
  if (at >= 0) touch(store, layer, move->slot);
  else if (!take_slot(store, index, head, block, move)) return false;
  store->slot(*layer, move->slot).state = kSlotOpen;
  return true;
}

kvsift_status put_rows(CudaStore *store, std::uint32_t index, const Stretch &stretch, StoreAppendArgs *args, CUstream stream) {
  const auto flush = [&] {
    const LaunchShape shape{args->count, 1, 1, kMoveThreads, 0};
    const kvsift_status status = launch(store->device, kKernel_store_append, shape, stream, *args, &store->error);
    if (status != KVSIFT_OK) store->lost = status;
    args->count = 0;
    return status;
  };
  for (std::uint32_t h = 0; h < store->g.kv_heads; ++h) {
    for (std::uint32_t b = stretch.first_block; b <= stretch.last_block; ++b) {
      if (!open_slot(store, index, h, b, &args->moves[args->count])) {
        store->lost = KVSIFT_CAPACITY;  // cannot be: the configuration was checked
        return fail(&store->error, KVSIFT_CAPACITY, "layer ", index, ": no slot of ", store->layers[index].slots,
                    " can be freed for new tokens");
      }
      if (++args->count < kMovesMost) continue;
      if (kvsift_status s = flush()) return s;
    }
  }
  return args->count > 0 ? flush() : KVSIFT_OK;
}

kvsift_status keep_sums(CudaStore *store, std::uint32_t index, std::uint32_t first_block, std::uint32_t blocks) {
  StoreSumArgs args = sums_of(*store, index);
  for (std::uint32_t h = 0; h < store->g.kv_heads; ++h) {
    for (std::uint32_t b = first_block; b < first_block + blocks; ++b) {
      const std::uint32_t record = store->record(h, b);
      args.moves[args.count++] = Move{record, slot_of(*store->entry(index, record)), kNoSlot};
      if (args.count < kMovesMost) continue;
      if (kvsift_status s = launch_sums(store, &args, store->copies)) return s;
    }
  }
  return args.count > 0 ? launch_sums(store, &args, store->copies) : KVSIFT_OK;
}

// Completed blocks go to slow memory behind the caller's back; neighbours on both sides in one copy.
kvsift_status write_back(CudaStore *store, std::uint32_t index, std::uint32_t first_block, std::uint32_t blocks) {
  const Geometry &g = store->g;
  CudaLayer *layer = store->layers + index;
  if (store->sums != nullptr) {
    if (kvsift_status s = keep_sums(store, index, first_block, blocks)) return s;
  }
  for (std::uint32_t h = 0; h < g.kv_heads; ++h) {
    for (std::uint32_t b = first_block, run = 0; b < first_block + blocks; b += run) {
      const std::uint32_t record = store->record(h, b);
      const std::int32_t *entry = store->entry(index, record);
      for (run = 0; b + run < first_block + blocks && entry[run] == entry[0] + static_cast<std::int32_t>(run); ++run) {
        store->slot(*layer, static_cast<std::uint32_t>(entry[run])).state = kSlotHeld;
      }
      const std::uint64_t slot = layer->first_slot + static_cast<std::uint64_t>(entry[0]), bytes = run * g.slot_bytes;
      const CUresult result =
          store->device.driver.to_host(store->records + (store->first_record(index) + record) * g.slot_bytes,
                                       reinterpret_cast<CUdeviceptr>(store->slots) + slot * g.slot_bytes, bytes, store->copies);
      if (kvsift_status s = check_driver(store, result, "cuMemcpyDtoHAsync")) return s;
      ++store->stats.writes;
      store->stats.bytes_written += bytes;
    }
  }
  return check_driver(store, store->device.driver.event_record(layer->written, store->copies), "cuEventRecord");
}

}  // namespace

kvsift_status append(CudaStore *store, std::uint32_t index, std::uint32_t tokens, const kvsift_view &keys,
                     const kvsift_view &values, CUstream stream) {
  const Geometry &g = store->g;
  const Driver &d = store->device.driver;
  CudaLayer *layer = store->layers + index;
  const std::uint32_t first = layer->tokens, end = first + tokens;
  StoreAppendArgs args = rows_of(*store, index, keys, values);
  while (layer->tokens < end) {
    const Stretch stretch = next_stretch(*store, *layer, end);
    ++store->call;
    args.begin = stretch.begin;
    args.end = stretch.end;
    args.row = stretch.begin - first;
    // A slot may be taken whose block is being fetched or written back.
    if (kvsift_status s = check_driver(store, d.stream_wait(stream, layer->fetched, 0), "cuStreamWaitEvent")) return s;
    if (kvsift_status s = check_driver(store, d.stream_wait(stream, layer->written, 0), "cuStreamWaitEvent")) return s;
    if (kvsift_status s = put_rows(store, index, stretch, &args, stream)) return s;
    layer->tokens = stretch.end;
    const std::uint32_t complete = (stretch.end >> g.block_shift) - stretch.first_block;
    if (complete == 0) continue;
    if (kvsift_status s = order_streams(store, stream, store->used, store->copies)) return s;
    if (kvsift_status s = write_back(store, index, stretch.first_block, complete)) return s;
  }
  return KVSIFT_OK;
}

kvsift_status truncate(CudaStore *store, std::uint32_t index, std::uint32_t tokens, CUstream stream) {
  const Geometry &g = store->g;
  const Driver &d = store->device.driver;
  CudaLayer *layer = store->layers + index;
  if (layer->tokens <= tokens) return KVSIFT_OK;
  if (kvsift_status s = check_driver(store, d.stream_wait(stream, layer->fetched, 0), "cuStreamWaitEvent")) return s;
  if (kvsift_status s = check_driver(store, d.stream_wait(stream, layer->written, 0), "cuStreamWaitEvent")) return s;
  Mover mover(store, index, stream);
  const std::uint32_t whole = tokens >> g.block_shift, kept = (tokens + g.block_tokens - 1) >> g.block_shift;
  for (std::uint32_t h = 0; h < g.kv_heads; ++h) {
    for (std::uint32_t b = kept; b << g.block_shift < layer->tokens; ++b) {
      const std::uint32_t record = store->record(h, b);
      const std::int32_t at = *store->entry(index, record);
      if (at == kNotHere) continue;
      release_slot(store, index, slot_of(at));
      mover.tell(Move{record, kNoSlot, kNoSlot});
    }
  }
  ++store->call;
  layer->tokens = tokens;
  // The block that the cache ends in takes rows again.
  for (std::uint32_t h = 0; h < g.kv_heads && whole < kept; ++h) {
    Move move;
    const std::int32_t at = *store->entry(index, store->record(h, whole));
    if (!open_slot(store, index, h, whole, &move)) {
      mover.finish();
      store->lost = KVSIFT_CAPACITY;  // cannot be: the configuration was checked
      return fail(&store->error, KVSIFT_CAPACITY, "layer ", index, ": no slot can be freed for the last block");
    }
    if (at == kNotHere) mover.fetch(move);
    else if (at < kNotHere) mover.tell(move);
  }
  return mover.finish();
}

}  // namespace kvsift

#include "cuda/attend/prefill.h"

#include "attend/chunk.h"

namespace kvsift {
namespace {

constexpr std::uint64_t kMostRoom = 64ull << 20;
constexpr std::uint32_t kMostRows = 64;

std::uint32_t chunks_of(const Settings &s) { return (s.c.max_tokens + kChunk - 1) / kChunk; }

// Blocks that a chunk can have a part of.
std::uint32_t parts_of(const Settings &s) {
  const std::uint32_t size = s.c.block_tokens;
  if (kChunk % size == 0) return kChunk / size;
  return size % kChunk == 0 ? 1 : kChunk / size + 2;
}

std::uint64_t stride_of(const Settings &s) { return (s.max_blocks + 15) / 16 * 16; }

PrefillPlaces places_for(const Settings &s, std::uint32_t rows) {
  const std::uint64_t items = std::uint64_t{rows} * s.c.kv_heads * s.group, chunks = chunks_of(s), parts = parts_of(s);
  const std::uint64_t pooled = std::uint64_t{rows} * s.c.kv_heads * s.lists * stride_of(s);
  const bool mass = (s.needs & KVSIFT_NEEDS_MASS) != 0;
  Layout layout;
  PrefillPlaces p{};
  p.rows = rows;
  p.chunk_max = layout.take<float>(items * chunks, "prefill chunk maxima");
  p.chunk_sum = layout.take<float>(items * chunks, "prefill chunk sums");
  p.peak = layout.take<float>(items * chunks * parts, "prefill block maxima");
  p.mass = layout.take<float>(mass ? items * chunks * parts : 0, "prefill block sums");
  p.log_sums = layout.take<float>(items, "prefill sums");
  p.pooled_peak = layout.take<float>(pooled, "prefill pooled rows");
  p.pooled_mass = layout.take<float>(mass ? pooled : 0, "prefill pooled masses");
  p.bytes = layout.used();
  return p;
}

std::uint32_t shift_of(std::uint32_t page_tokens) {
  std::uint32_t shift = 0;
  while (page_tokens >> shift > 1) ++shift;
  return shift;
}

// Whether eight neighbours of any row lie at a multiple of their bytes, at most 16.
bool is_aligned(const kvsift_view &view) {
  const std::uint64_t eight = view.type == KVSIFT_I8 ? 8 : 16;
  const std::uint64_t places = reinterpret_cast<std::uint64_t>(view.data) | view.token_stride | view.head_stride |
                               view.page_stride;
  return places % eight == 0;
}

PrefillRoom room_of(const Settings &s, const PrefillPlaces &p, char *room) {
  return PrefillRoom{p.chunk_max.in(room), p.chunk_sum.in(room), p.peak.in(room), p.mass.in(room), p.log_sums.in(room),
                     p.pooled_peak.in(room), p.pooled_mass.in(room), chunks_of(s), parts_of(s), stride_of(s)};
}

kvsift_status launch_pass(const Launcher &to, const PrefillArgs &args) {
  const Settings &s = args.call.image.s;
  const std::uint32_t tokens = args.call.tokens, items = args.rows * s.group;
  const LaunchShape chunks{(tokens + kChunk - 1) / kChunk, (items + kPrefillItems - 1) / kPrefillItems, args.heads,
                           kPrefillThreads, 0};
  const LaunchShape merge{(items + 31) / 32, 1, args.heads, 32, 0};
  const LaunchShape pool{(blocks_of(tokens, s.c.block_tokens) + 255) / 256, args.rows, args.heads, 256, 0};
  if (kvsift_status status = launch(to.device, kKernel_prefill_chunks, chunks, to.stream, args, to.error)) return status;
  if (kvsift_status status = launch(to.device, kKernel_prefill_merge, merge, to.stream, args, to.error)) return status;
  return launch(to.device, kKernel_prefill_pool, pool, to.stream, args, to.error);
}

}  // namespace

PrefillPlaces prefill_places(const Settings &s) {
  const std::uint64_t row = places_for(s, 1).bytes;
  std::uint64_t rows = kMostRoom / row;
  if (rows > kMostRows) rows = kMostRows;
  return places_for(s, rows > 1 ? static_cast<std::uint32_t>(rows) : 1);
}

kvsift_status prefill_rows(const Launcher &to, const Call &call, std::uint32_t heads, const PrefillJob &job, char *room,
                           ObserveRows observe) {
  const Settings &s = call.image.s;
  const PrefillPlaces places = prefill_places(s);
  const std::uint32_t given = job.query.rows == 0 ? 1 : job.query.rows, wanted = job.rows < given ? job.rows : given;
  PrefillArgs args{call, job.query.view, job.cache.keys, job.cache.block_table, job.cache.block_table_stride, 0, 0, 0,
                   heads, job.with_mass, is_aligned(job.cache.keys), room_of(s, places, room)};
  args.page_shift = shift_of(job.cache.page_tokens);
  for (std::uint32_t done = 0; done < wanted; done += args.rows) {
    args.rows = wanted - done < places.rows ? wanted - done : places.rows;
    args.first_row = given - wanted + done;
    args.call.tokens = call.tokens - (wanted - done - args.rows);
    if (kvsift_status status = launch_pass(to, args)) return status;
    const std::uint64_t list = args.room.block_stride, head = list * s.lists;
    const DeviceRows rows{args.room.pooled_peak, job.with_mass ? args.room.pooled_mass : nullptr, head * heads, head, list,
                          args.rows, 1, kFirstUnlessSeen};
    if (kvsift_status status = observe(to, args.call, heads, rows)) return status;
    const LaunchShape seen{1, heads, 1, 32, 0};
    if (kvsift_status status = launch(to.device, kKernel_prefill_seen, seen, to.stream, args, to.error)) return status;
  }
  return KVSIFT_OK;
}

}  // namespace kvsift

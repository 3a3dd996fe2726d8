#include "cuda/attend/attend.h"
#include "cuda/methods/method.h"
#include "cuda/policy/coreset.h"
#include "cuda/policy/policy.h"
#include "cuda/policy/reduce.h"
#include "policy/layout.h"

namespace kvsift {
namespace {

kvsift_status check_supported(const Settings &s, kvsift_error *error) {
  const kvsift_policy_config &c = s.c;
  if (cuda_method_of(c.method) == nullptr) {
    return fail(error, KVSIFT_UNSUPPORTED, "config.method is ", c.method, ", which does not run on the device");
  }
  return check_coreset_form(s, error);
}

// Chunks that a query head's pass can have: all tokens, or some of them and all pages, or the coreset's others.
std::uint64_t slots_of(const Settings &s) {
  const std::uint64_t pages = s.value_moments ? blocks_of(s.max_pages, kChunk) + 1u : 0;
  std::uint64_t kept = blocks_of(s.c.max_tokens, kChunk);
  if (s.c.tensor_attention != 0 && tensor_blocks(s) > kept) kept = tensor_blocks(s);
  return kept + pages + (s.coreset.entries > 0 ? 1 : 0);
}

RoomPlaces lay_out_room(const Settings &s, Layout *layout) {
  const std::uint64_t lists = std::uint64_t{s.lists} * s.c.kv_heads, heads = s.c.query_heads, slots = slots_of(s);
  RoomPlaces room{};
  room.slots = slots;
  room.steps = layout->take<StepRecord>(s.c.kv_heads, "device steps").bytes;
  room.tickets = layout->take<std::uint32_t>(s.c.kv_heads, "device tickets").bytes;
  room.chosen = layout->take<std::uint32_t>(lists * s.list_blocks, "device choices").bytes;
  room.chosen_counts = layout->take<std::uint32_t>(lists, "device choice counts").bytes;
  room.kept_counts = layout->take<std::uint32_t>(lists, "device kept counts").bytes;
  // A hole makes one range two, but each has a block at least.
  const std::uint64_t holes = s.max_blocks / 2 + 1u;
  room.present_ranges = s.list_ranges > holes ? s.list_ranges : holes;
  room.present = layout->take<kvsift_range>(lists * room.present_ranges, "device present ranges").bytes;
  room.present_counts = layout->take<std::uint32_t>(lists, "device present counts").bytes;
  room.present_kept = layout->take<std::uint32_t>(lists, "device present tokens").bytes;
  room.reduced = layout->take<float>(s.c.kv_heads * reduce_room(s), "device row maxima").bytes;
  room.sorted = layout->take<std::uint32_t>(s.c.target_mass > 0 ? lists * s.list_blocks : 0, "device sorted choices").bytes;
  room.values = layout->take<float>(heads * slots * s.dim16, "device chunk values").bytes;
  room.sums = layout->take<float>(heads * slots * 2, "device chunk sums").bytes;
  room.carries = layout->take<Carry>(heads * slots, "device chunk carries").bytes;
  const std::uint64_t left = lists * s.coreset.most(), side = coreset_matrix_side(s);
  room.left = layout->take<std::uint32_t>(left, "device coreset tokens").bytes;
  room.left_logs = layout->take<float>(left, "device coreset weights").bytes;
  room.left_counts = layout->take<std::uint32_t>(lists, "device coreset counts").bytes;
  const std::uint64_t ahead = side > 0 ? s.c.kv_heads * ahead_places(s.coreset, s.c.max_tokens, s.coreset.levels) : 0;
  room.matrix = layout->take<float>(s.c.kv_heads * coreset_matrices(s) * side * side, "device kernel matrices").bytes;
  room.ahead = layout->take<std::uint32_t>(ahead, "device halvings").bytes;
  room.ahead_weights = layout->take<float>(ahead, "device halvings' weights").bytes;
  room.method = layout->take<char>(cuda_method_of(s.c.method)->room_bytes(s), "device method room").bytes;
  room.bytes = layout->used();
  return room;
}

}  // namespace

kvsift_status lay_out_cuda(const kvsift_policy_config &config, CudaPlaces *places) {
  *places = CudaPlaces{};
  if (kvsift_status s = settle(config, &places->settings)) return s;
  const Settings &s = places->settings;
  if (kvsift_status status = check_supported(s, config.error)) return status;
  Layout layout;
  if (kvsift_status status = lay_out(s, &layout, &places->policy, config.error)) return status;
  places->room = lay_out_room(s, &layout);
  if (kvsift_status status = layout.check(config.error)) return status;
  places->device_bytes = places->room.bytes;
  Layout host;
  host.take<CudaPolicy>(1, "device policy");
  const std::uint64_t units = std::uint64_t{s.sparse_layers} * s.c.kv_heads;
  places->keys_seen = host.take<std::uint32_t>(units, "keys seen");
  places->rows_seen = host.take<std::uint32_t>(units, "rows seen");
  places->host_bytes = host.used();
  places->pinned_bytes = align_up(sizeof(Fault));
  return KVSIFT_OK;
}

Image image_of(const CudaPlaces &places, const Policy &host, char *base, Fault *fault) {
  const PolicyPlaces &p = places.policy;
  Image image{};
  image.base = base;
  image.fault = fault;
  image.s = places.settings;
  image.s.c.error = nullptr;
  image.at = p.places;
  image.room = places.room;
  // The counters of struct Policy lie side by side, in the order of struct Progress.
  image.progress = static_cast<std::uint64_t>(reinterpret_cast<const char *>(&host.tokens) -
                                              reinterpret_cast<const char *>(&host));
  image.units = p.units.bytes;
  image.scratch = p.scratch.bytes;
  image.scratch_floats = p.scratch_floats;
  image.ranges = p.ranges.bytes;
  image.range_counts = p.range_counts.bytes;
  image.blocks = p.blocks.bytes;
  image.block_counts = p.block_counts.bytes;
  image.missed = p.missed.bytes;
  image.missed_counts = p.missed_counts.bytes;
  image.marks = p.marks.bytes;
  image.coreset = p.coreset.bytes;
  image.coreset_weights = p.coreset_weights.bytes;
  image.coreset_counts = p.coreset_counts.bytes;
  return image;
}

}  // namespace kvsift

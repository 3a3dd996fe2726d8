#include "store/geometry.h"

#include "core/status.h"
#include "core/view.h"
#include "store/image.h"

namespace kvsift {
namespace {

constexpr std::uint64_t kSlowMost = 1ull << 62;

std::uint64_t round_up(std::uint64_t bytes, std::uint64_t alignment) {
  return (bytes + alignment - 1) & ~(alignment - 1);
}

bool power_of_two(std::uint32_t v) { return v != 0 && (v & (v - 1)) == 0; }

struct Limit {
  const char *name;
  std::uint32_t value, least, most;
};

kvsift_status check_limits(const kvsift_store_config &c) {
  const Limit limits[] = {
      {"layers", c.layers, 1, KVSIFT_MAX_LAYERS},
      {"kv_heads", c.kv_heads, 1, 1024},
      {"query_heads", c.query_heads, 0, 1024 * KVSIFT_MAX_GROUP},
      {"head_dim", c.head_dim, 1, KVSIFT_MAX_HEAD_DIM},
      {"max_tokens", c.max_tokens, 1, KVSIFT_MAX_TOKENS},
      {"block_tokens", c.block_tokens, 1, 256},
      {"fast_blocks", c.fast_blocks, 1, KVSIFT_MAX_TOKENS},
      {"resident_layers", c.resident_layers, 0, c.layers},
      {"sink_tokens", c.sink_tokens, 0, KVSIFT_MAX_TOKENS},
      {"local_tokens", c.local_tokens, 0, KVSIFT_MAX_TOKENS},
      {"alignment", c.alignment, 64, 65536},
      {"io", c.io, 0, KVSIFT_STORE_IO_THREADS},
      {"direct", c.direct, 0, 1},
      {"threads", c.threads, 1, 64},
      {"depth", c.depth, 1, 256},
      {"checksums", c.checksums, 0, 1},
      {"verify", c.verify, 0, 1},
      {"timing", c.timing, 0, 1},
      {"trace_events", c.trace_events, 0, 1u << 24},
      {"type", c.type, 0, KVSIFT_I8},
      {"storage", c.storage, 0, KVSIFT_I8},
  };
  for (const Limit &l : limits) {
    if (l.value < l.least || l.value > l.most) {
      return fail(c.error, KVSIFT_INVALID_ARGUMENT, "store config: ", l.name, " is ", l.value, ", must be ",
                  l.least, " to ", l.most);
    }
  }
  return KVSIFT_OK;
}

kvsift_status check_relations(const kvsift_store_config &c) {
  if (!power_of_two(c.block_tokens) || !power_of_two(c.alignment)) {
    return fail(c.error, KVSIFT_INVALID_ARGUMENT, "store config: block_tokens ", c.block_tokens,
                " and alignment ", c.alignment, " must be powers of two");
  }
  if (c.query_heads != 0 && (c.query_heads % c.kv_heads != 0 ||
                             c.query_heads / c.kv_heads > KVSIFT_MAX_GROUP)) {
    return fail(c.error, KVSIFT_INVALID_ARGUMENT, "store config: query_heads ", c.query_heads,
                " must be a multiple of kv_heads ", c.kv_heads, ", up to ", KVSIFT_MAX_GROUP, " times");
  }
  if (c.storage != c.type && c.storage != KVSIFT_I8) {
    return fail(c.error, KVSIFT_INVALID_ARGUMENT, "store config: storage ", c.storage,
                " must be the type ", c.type, " or I8");
  }
  return KVSIFT_OK;
}

// Sinks, local tokens, the block that is being written and one more must fit, or nothing could ever move.
kvsift_status check_fast_tier(const kvsift_store_config &c, const Geometry &g) {
  const std::uint32_t least = (c.sink_tokens + g.block_tokens - 1) / g.block_tokens +
                              (c.local_tokens + g.block_tokens - 1) / g.block_tokens + 2;
  if (g.fast_blocks < g.blocks && g.fast_blocks < least && c.resident_layers < c.layers) {
    return fail(c.error, KVSIFT_INVALID_ARGUMENT, "store config: fast_blocks is ", c.fast_blocks,
                ", sink and local tokens and the open block need at least ", least);
  }
  if (g.slots() > UINT32_MAX / 2) {
    return fail(c.error, KVSIFT_INVALID_ARGUMENT, "store config: ", g.slots(), " slots are too many");
  }
  return KVSIFT_OK;
}

void place_record(Geometry *g) {
  g->row_bytes = std::uint64_t{g->head_dim} * element_bytes(g->storage);
  g->keys_bytes = g->row_bytes * g->block_tokens;
  g->record_bytes = 2 * g->keys_bytes;
  g->scales_at = round_up(g->record_bytes, 16);
  if (g->storage == KVSIFT_I8) g->record_bytes = g->scales_at + 2ull * g->block_tokens * sizeof(float);
  g->slot_bytes = round_up(g->record_bytes, g->alignment);
}

}  // namespace

kvsift_status make_geometry(const kvsift_store_config &c, Geometry *g) {
  if (kvsift_status s = check_limits(c)) return s;
  if (kvsift_status s = check_relations(c)) return s;
  *g = Geometry{};
  g->layers = c.layers;
  g->kv_heads = c.kv_heads;
  g->query_heads = c.query_heads == 0 ? c.kv_heads : c.query_heads;
  g->head_dim = c.head_dim;
  g->block_tokens = c.block_tokens;
  g->block_shift = static_cast<std::uint32_t>(__builtin_ctz(c.block_tokens));
  g->max_tokens = c.max_tokens;
  g->blocks = (c.max_tokens + c.block_tokens - 1) / c.block_tokens;
  g->type = c.type;
  g->storage = c.storage;
  g->alignment = c.alignment;
  g->checksums = c.checksums;
  g->fast_blocks = c.fast_blocks < g->blocks ? c.fast_blocks : g->blocks;
  g->resident_layers = c.resident_layers;
  g->sink_tokens = c.sink_tokens;
  g->local_tokens = c.local_tokens;
  place_record(g);
  g->header_bytes = round_up(sizeof(ImageHeader), c.alignment);
  g->entry_bytes = round_up(sizeof(ImageEntry) + g->records_of_block() * sizeof(std::uint64_t), c.alignment);
  g->records_at = g->header_bytes + g->blocks * g->entry_bytes;
  std::uint64_t records = 0, bytes = 0;
  if (__builtin_mul_overflow(g->records_of_block() * g->blocks, g->slot_bytes, &records) ||
      __builtin_add_overflow(records, g->records_at, &bytes) || bytes > kSlowMost) {
    return fail(c.error, KVSIFT_INVALID_ARGUMENT, "store config: the slow tier would exceed 2^62 bytes");
  }
  g->slow_bytes = bytes;
  return check_fast_tier(c, *g);
}

}  // namespace kvsift

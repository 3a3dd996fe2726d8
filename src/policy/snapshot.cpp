#include "policy/snapshot.h"

#include <cstddef>
#include <cstring>

#include "core/checksum.h"
#include "methods/method.h"
#include "policy/coreset.h"
#include "policy/same_config.h"
#include "predictor/weights.h"

namespace kvsift {
namespace {

constexpr char kMagic[8] = {'k', 'v', 's', 'i', 'f', 't', 'S', 'N'};
constexpr std::uint32_t kVersion = 2;

struct Header {
  char magic[8];
  std::uint32_t version;
  std::uint32_t reach;  // tokens of which units hold something
  std::uint32_t tokens, decode_steps, prompt_end, first_prompt;
  std::uint32_t selected_for;
  std::uint32_t weights;   // the predictor's, see weights_of
  std::uint64_t bytes;     // of the whole snapshot
  std::uint64_t checksum;  // of all that follows the header, continued over the header with this field zero
  kvsift_policy_config config;
};

std::uint64_t sum_of(Header header, const char *body) {
  header.checksum = 0;
  return checksum(&header, sizeof header, checksum(body, header.bytes - sizeof header));
}

void clear_between(kvsift_policy_config *c, std::size_t begin, std::size_t end) {
  std::memset(reinterpret_cast<char *>(c) + begin, 0, end - begin);
}

// The configuration as far as it shapes the state; padding is zero, so that equal states have equal snapshots.
kvsift_policy_config identity(const Settings &s) {
  constexpr std::size_t kDenseEnd = offsetof(kvsift_policy_config, dense_tokens) + sizeof(std::uint32_t);
  kvsift_policy_config c = s.c;
  c.predictor = nullptr;
  c.error = nullptr;
  c.dense_tokens = s.dense_tokens;
  c.struct_size = 0;
  clear_between(&c, kDenseEnd, offsetof(kvsift_policy_config, seed));
  clear_between(&c, offsetof(kvsift_policy_config, tensor_attention), sizeof c);
  return c;
}

// Tells predictors apart: what a policy expects next comes of its weights as well as of its state. 0 where there are none.
std::uint32_t weights_of(const Settings &s) {
  if (s.c.method != KVSIFT_METHOD_ATTENTION_PREDICTOR) return 0;
  const kvsift_predictor &predictor = s.c.predictor == nullptr ? default_predictor() : *s.c.predictor;
  const std::uint64_t sum = checksum(&predictor.weights, offsetof(PredictorWeights, bias3) + sizeof(float));
  return static_cast<std::uint32_t>(sum ^ sum >> 32);
}

std::uint32_t reach_of(const Policy &policy) {
  std::uint32_t reach = policy.tokens;
  for (std::uint32_t layer = 0; layer < policy.s.sparse_layers; ++layer) {
    for (std::uint32_t head = 0; head < policy.s.c.kv_heads; ++head) {
      const Unit *unit = policy.unit(layer, head);
      if (unit->keys_seen > reach) reach = unit->keys_seen;
      if (unit->rows_seen > reach) reach = unit->rows_seen;
    }
  }
  return reach;
}

// Calls use(offset in the unit, bytes) for each stretch that holds something when `reach` tokens were seen.
template <class Use>
void each_stretch(const Settings &s, const UnitPlaces &p, std::uint32_t reach, Use use) {
  use(std::uint64_t{0}, p.step_end);
  for (std::uint32_t i = 0; i < p.field_count; ++i) {
    const Field &field = p.fields[i];
    if (field.offset < p.step_end) continue;
    std::uint64_t pieces = field.bytes / field.repeat / (field.piece == 0 ? 1 : field.piece);
    if (field.grows == Grows::kBlocks) pieces = blocks_of(reach, s.c.block_tokens);
    if (field.grows == Grows::kPages) pieces = blocks_of(reach, s.c.page_tokens);
    for (std::uint32_t r = 0; r < field.repeat && field.bytes > 0; ++r) {
      use(field.offset + field.bytes / field.repeat * r, pieces * field.piece);
    }
  }
}

std::uint64_t unit_bytes(const Settings &s, const UnitPlaces &p, std::uint32_t reach) {
  std::uint64_t bytes = 0;
  each_stretch(s, p, reach, [&bytes](std::uint64_t, std::uint64_t n) { bytes += n; });
  return bytes;
}

bool counts_sane(const Policy &policy, const Header &h, const Unit &unit) {
  const Settings &s = policy.s;
  return unit.keys_seen <= h.reach && unit.rows_seen <= h.reach && unit.selected_for <= s.c.max_tokens &&
         unit.prompt_tokens <= h.tokens && unit.decided <= 1 && unit.undo_count <= s.c.rollback_tokens &&
         (unit.undo_next == 0 || unit.undo_next < s.c.rollback_tokens);
}

// Kept blocks index other arrays and become ranges: they must ascend within the prompt.
bool kept_sane(const Policy &policy, const Unit &unit, const UnitImage &image) {
  const Settings &s = policy.s;
  const UnitPlaces &p = policy.places;
  const std::uint32_t blocks = blocks_of(unit.prompt_tokens, s.c.block_tokens);
  for (std::uint32_t list = 0; list < s.lists; ++list) {
    const auto count = image.read<std::uint32_t>(p.kept_counts, list);
    if (count > s.kept_blocks) return false;
    std::uint32_t least = 0;
    for (std::uint32_t i = 0; i < count; ++i) {
      const auto block = image.read<std::uint32_t>(p.kept, std::uint64_t{list} * s.kept_blocks + i);
      if (block < least || block >= blocks) return false;
      least = block + 1;
    }
  }
  return true;
}

bool coreset_image_sane(const Policy &policy, const Unit &unit, const UnitImage &image) {
  const UnitPlaces &p = policy.places;
  const CoresetImage coreset{image.at(p.coreset_state), image.at(p.coreset_tokens), image.at(p.coreset_weights),
                             image.at(p.coreset_backups), image.at(p.coreset_before_end),
                             image.at(p.coreset_guards)};
  return coreset_sane(policy.s.coreset, coreset, unit.keys_seen);
}

bool unit_sane(const Policy &policy, const Header &h, const char *bytes) {
  const Method &method = *method_of(policy.s.c.method);
  const UnitImage image(policy.s, policy.places, h.reach, bytes);
  const auto unit = image.read<Unit>(0, 0);
  if (!counts_sane(policy, h, unit)) return false;
  if (method.sane != nullptr && !method.sane(policy.s, policy.places, image)) return false;
  if (has_coreset(policy.s) && !coreset_image_sane(policy, unit, image)) return false;
  return method.keep == nullptr || kept_sane(policy, unit, image);
}

kvsift_status check_header(const Policy &policy, const Header &h, std::uint64_t bytes, kvsift_error *error) {
  if (std::memcmp(h.magic, kMagic, sizeof kMagic) != 0) {
    return fail(error, KVSIFT_CORRUPT, "buffer does not begin with the magic of a kvsift snapshot");
  }
  if (h.version != kVersion) {
    return fail(error, KVSIFT_VERSION_MISMATCH, "buffer is a snapshot of version ", h.version, ", this is version ",
                kVersion);
  }
  const ConfigDifference other = difference_of(h.config, identity(policy.s));
  if (other.field != nullptr) {
    return fail(error, KVSIFT_CONFIG_MISMATCH, "buffer is a snapshot of another configuration: its ", other.field, " is ",
                other.a, ", the policy's ", other.b);
  }
  if (h.weights != weights_of(policy.s)) {
    return fail(error, KVSIFT_CONFIG_MISMATCH, "buffer is a snapshot of a policy with other predictor weights (checksum ",
                h.weights, ", here ", weights_of(policy.s), ")");
  }
  if (h.reach > policy.s.c.max_tokens || h.tokens > h.reach || h.prompt_end > h.tokens || h.first_prompt > h.tokens ||
      h.decode_steps > h.tokens || h.selected_for > policy.s.c.max_tokens) {
    return fail(error, KVSIFT_CORRUPT, "buffer: its header counts ", h.tokens, " tokens, ", h.decode_steps,
                " steps and a reach of ", h.reach);
  }
  const std::uint64_t units = std::uint64_t{policy.s.sparse_layers} * policy.s.c.kv_heads;
  const std::uint64_t wanted = sizeof h + units * unit_bytes(policy.s, policy.places, h.reach);
  if (h.bytes != wanted || bytes < wanted) {
    return fail(error, KVSIFT_CORRUPT, "buffer holds ", bytes, " bytes and claims ", h.bytes, ", the snapshot has ",
                wanted);
  }
  return KVSIFT_OK;
}

}  // namespace

const char *UnitImage::at(std::uint64_t offset) const {
  const char *at = bytes_, *found = bytes_;
  each_stretch(settings_, places_, reach_, [&](std::uint64_t begin, std::uint64_t bytes) {
    if (offset >= begin && offset < begin + bytes) found = at + (offset - begin);
    at += bytes;
  });
  return found;
}

std::uint64_t snapshot_bytes(const Policy &policy) {
  const std::uint64_t units = std::uint64_t{policy.s.sparse_layers} * policy.s.c.kv_heads;
  return sizeof(Header) + units * unit_bytes(policy.s, policy.places, reach_of(policy));
}

void save(const Policy &policy, void *buffer) {
  Header h;
  std::memset(&h, 0, sizeof h);
  std::memcpy(h.magic, kMagic, sizeof kMagic);
  h.version = kVersion;
  h.reach = reach_of(policy);
  h.weights = weights_of(policy.s);
  h.tokens = policy.tokens;
  h.decode_steps = policy.decode_steps;
  h.prompt_end = policy.prompt_end;
  h.first_prompt = policy.first_prompt;
  h.selected_for = policy.selected_for.load(std::memory_order_relaxed);
  h.bytes = snapshot_bytes(policy);
  h.config = identity(policy.s);
  char *body = static_cast<char *>(buffer) + sizeof h, *at = body;
  for (std::uint32_t layer = 0; layer < policy.s.sparse_layers; ++layer) {
    for (std::uint32_t head = 0; head < policy.s.c.kv_heads; ++head) {
      const char *unit = reinterpret_cast<const char *>(policy.unit(layer, head));
      each_stretch(policy.s, policy.places, h.reach, [&](std::uint64_t offset, std::uint64_t bytes) {
        std::memcpy(at, unit + offset, bytes);
        at += bytes;
      });
    }
  }
  h.checksum = sum_of(h, body);
  std::memcpy(buffer, &h, sizeof h);
}

kvsift_status load(Policy *policy, const void *buffer, std::uint64_t bytes, kvsift_error *error) {
  Header h;
  if (bytes < sizeof h) {
    return fail(error, KVSIFT_CORRUPT, "buffer of ", bytes, " bytes is shorter than a snapshot's header");
  }
  std::memcpy(&h, buffer, sizeof h);
  if (kvsift_status s = check_header(*policy, h, bytes, error)) return s;
  const char *body = static_cast<const char *>(buffer) + sizeof h, *at = body;
  if (sum_of(h, body) != h.checksum) return fail(error, KVSIFT_CORRUPT, "buffer: the snapshot's checksum is wrong");
  const std::uint64_t step = unit_bytes(policy->s, policy->places, h.reach);
  const std::uint64_t units = std::uint64_t{policy->s.sparse_layers} * policy->s.c.kv_heads;
  for (std::uint64_t i = 0; i < units; ++i) {
    if (unit_sane(*policy, h, body + i * step)) continue;
    return fail(error, KVSIFT_CORRUPT, "buffer: the state of unit ", i, " is out of range");
  }
  for (std::uint32_t layer = 0; layer < policy->s.sparse_layers; ++layer) {
    for (std::uint32_t head = 0; head < policy->s.c.kv_heads; ++head) {
      char *unit = reinterpret_cast<char *>(policy->unit(layer, head));
      each_stretch(policy->s, policy->places, h.reach, [&](std::uint64_t offset, std::uint64_t n) {
        std::memcpy(unit + offset, at, n);
        at += n;
      });
    }
  }
  for (std::uint32_t head = 0; head < policy->s.c.kv_heads; ++head) policy->marks.in(policy)[head] = HeadMarks{};
  policy->tokens = h.tokens;
  policy->decode_steps = h.decode_steps;
  policy->prompt_end = h.prompt_end;
  policy->first_prompt = h.first_prompt;
  policy->selected_for.store(h.selected_for, std::memory_order_relaxed);
  return KVSIFT_OK;
}

}  // namespace kvsift

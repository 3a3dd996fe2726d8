#include "predictor_probe.h"

#include <cstdlib>
#include <cstring>

#include "predictor/network.h"

using namespace kvsift;

struct probe {
  PredictorShape shape;
  PredictorWeights weights;
  PredictorCodes codes;
  PredictorRounded rounded;
  bool int8, bf16, multiplies_int8;
  Level level;
  const PredictorKernels *kernels;
  PredictorState state;
  std::size_t ring_bytes, s_bytes, filled_bytes;
  void *ring;
  float *s;
  std::uint8_t *filled;
};

namespace {

PredictorHistory history_of(const probe *p) {
  probe *q = const_cast<probe *>(p);
  return PredictorHistory{q->shape,   &q->weights, q->int8 ? &q->codes : nullptr, q->bf16 ? &q->rounded : nullptr,
                          q->kernels, conv_strip_for(q->level, q->int8, q->multiplies_int8),
                          &q->state,  q->ring,     q->s, q->filled};
}

// Exactly the bytes asked for, full of NaN: what the network reads before it was written shows.
void *dirty(std::size_t bytes) {
  void *memory = std::malloc(bytes);
  if (memory == nullptr) std::abort();
  std::memset(memory, 0xff, bytes);
  return memory;
}

}  // namespace

const char *probe_level_name(uint32_t level) {
  const Level l = static_cast<Level>(level);
  return level < kLevels && kernels(l) != nullptr && machine_has(l) ? level_name(l) : nullptr;
}

probe *probe_new(const probe_shape *shape) {
  auto *p = static_cast<probe *>(std::aligned_alloc(64, (sizeof(probe) + 63) / 64 * 64));
  if (p == nullptr) std::abort();
  p->shape = PredictorShape{shape->rows, shape->rows + shape->rollback, shape->columns, shape->left,
                            shape->local, static_cast<HistoryForm>(shape->form), shape->floor};
  p->weights = shape->parameters == nullptr ? default_predictor().weights : pack_weights(shape->parameters);
  p->codes = code_weights(p->weights);
  p->rounded = round_weights(p->weights);
  p->int8 = shape->arithmetic == 1;
  p->bf16 = shape->arithmetic == 2;
  p->level = static_cast<Level>(shape->level);
  p->multiplies_int8 = shape->no_vnni == 0 && machine_multiplies_int8(p->level);
  p->kernels = &kernels(static_cast<Level>(shape->level))->predictor;
  p->ring_bytes = std::size_t{p->shape.slots} * p->shape.columns * share_bytes(p->shape.form);
  p->s_bytes = std::size_t{p->shape.rows} * p->shape.columns * sizeof(float);
  p->ring = dirty(p->ring_bytes);
  p->filled_bytes = std::size_t{p->shape.rows} * groups_of(p->shape.columns);
  p->s = static_cast<float *>(dirty(p->s_bytes));
  p->filled = static_cast<std::uint8_t *>(dirty(p->filled_bytes));
  predictor_reset(history_of(p));
  return p;
}

probe *probe_copy(const probe *p) {
  auto *q = static_cast<probe *>(std::aligned_alloc(64, (sizeof(probe) + 63) / 64 * 64));
  if (q == nullptr) std::abort();
  *q = *p;
  q->ring = dirty(p->ring_bytes);
  q->s = static_cast<float *>(dirty(p->s_bytes));
  q->filled = static_cast<std::uint8_t *>(dirty(p->filled_bytes));
  std::memcpy(q->filled, p->filled, p->filled_bytes);
  std::memcpy(q->ring, p->ring, p->ring_bytes);
  std::memcpy(q->s, p->s, p->s_bytes);
  return q;
}

void probe_free(probe *p) {
  std::free(p->ring);
  std::free(p->s);
  std::free(p->filled);
  std::free(p);
}

void probe_append(probe *p, const float *shares, uint32_t columns) {
  predictor_append(history_of(p), shares, columns);
}

int probe_can_truncate(const probe *p, uint32_t rows) {
  return predictor_can_truncate(history_of(p), rows) ? 1 : 0;
}

void probe_truncate(probe *p, uint32_t rows, uint32_t columns) {
  predictor_truncate(history_of(p), rows, columns);
}

uint32_t probe_scores(probe *p, int plain, float *scores) {
  return predictor_scores(history_of(p), plain != 0, scores);
}

uint32_t probe_rows(const probe *p) { return predictor_rows(history_of(p)); }

float probe_share(const probe *p, uint32_t row, uint32_t column) {
  return predictor_share(history_of(p), row, column);
}

void probe_counters(const probe *p, uint64_t *computed, uint64_t *total) {
  *computed = p->state.computed;
  *total = p->state.total;
}

int probe_has_bits(uint32_t) { return 1; }

const float *probe_default_parameters() {
  static constexpr float kParametersInOrder[] = {
#include "predictor/default_weights.inc"
  };
  return kParametersInOrder;
}

// The predictor's network on a device behind the same face as on the CPU (support/predictor_probe.h), so that the same
// tests run on it. Level 1 is the device; the other levels are not there.
#include "predictor_probe.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "core/half.h"
#include "cuda/predictor/predictor.h"
#include "gpu.h"

using namespace kvsift;
using attention_predictor::kNever;
using attention_predictor::Marks;

namespace {

// Rows are told from each other by cache lengths, of which a block has more than there are rows.
constexpr std::uint32_t kBlockTokens = 1u << 20;

CudaDevice device;

// A unit with one list, as methods/attention_predictor.cpp lays it out.
struct Places {
  Offset<Counters> counters;
  Offset<PredictorState> states;
  Offset<Marks> marks;
  Offset<std::uint32_t> lengths;
  Offset<char> ring;
  Offset<float> s;
  Offset<std::uint8_t> filled;
  Offset<float> scores, row;
  std::uint64_t bytes;
};

Places lay_out(const PredictorShape &shape) {
  Layout layout;
  Places p{};
  p.counters = layout.take<Counters>(1, "counters");
  p.states = layout.take<PredictorState>(1, "states");
  p.marks = layout.take<Marks>(1, "marks");
  p.lengths = layout.take<std::uint32_t>(shape.slots, "lengths");
  p.ring = layout.take<char>(std::uint64_t{shape.slots} * shape.columns * share_bytes(shape.form), "ring");
  p.s = layout.take<float>(std::uint64_t{shape.rows} * shape.columns, "s");
  p.filled = layout.take<std::uint8_t>(std::uint64_t{shape.rows} * groups_of(shape.columns), "filled");
  p.scores = layout.take<float>(shape.columns, "scores");
  p.row = layout.take<float>(shape.columns, "a row");
  p.bytes = layout.used();
  return p;
}

void must(kvsift_status status, const kvsift_error &error) {
  if (status == KVSIFT_OK) return;
  std::fprintf(stderr, "%s\n", error.message);
  std::abort();
}

__attribute__((constructor)) void open() {
  kvsift_error error{};
  if (!gpu_open()) std::exit(77);
  must(open_device(&device, &error), error);
}

__attribute__((destructor)) void close() { close_device(&device); }

}  // namespace

struct probe {
  Histories h;
  Places places;
  char *unit;
  kvsift_predictor *predictor;
  PredictionPlan *plan;
  std::uint32_t *arrivals;
  std::uint32_t rows, lengths[1 << 17], columns;
};

namespace {

template <class T>
T read(const probe *p, const Offset<T> &from) {
  T value;
  gpu_read(&value, from.in(p->unit), sizeof value);
  return value;
}

void reset(probe *p, const probe_shape &shape) {
  static kvsift_predictor predictor;
  predictor = shape.parameters == nullptr ? default_predictor() : predictor_of(pack_weights(shape.parameters));
  p->predictor = static_cast<kvsift_predictor *>(gpu_new(sizeof predictor, &predictor));
  PredictorState state;
  PredictorHistory history{};
  history.shape = p->h.shape;
  history.weights = &predictor.weights;
  history.codes = p->h.arithmetic == KVSIFT_I8 ? &predictor.codes : nullptr;
  history.rounded = p->h.arithmetic == KVSIFT_BF16 ? &predictor.rounded : nullptr;
  history.conv_strip = conv_strip_for(Level::scalar, history.codes != nullptr, false);
  history.state = &state;
  predictor_reset(history);
  const Marks marks{0, kNever, 0};
  const Counters counters{};
  gpu_write(p->places.states.in(p->unit), &state, sizeof state);
  gpu_write(p->places.marks.in(p->unit), &marks, sizeof marks);
  gpu_write(p->places.counters.in(p->unit), &counters, sizeof counters);
}

// Device memory and what points there. What is read before it was written shows as NaN.
void allocate(probe *p) {
  auto *dirty = static_cast<char *>(std::malloc(p->places.bytes));
  if (dirty == nullptr) std::abort();
  std::memset(dirty, 0xff, p->places.bytes);
  const std::uint32_t zero = 0;
  p->unit = static_cast<char *>(gpu_new(p->places.bytes, dirty));
  p->plan = static_cast<PredictionPlan *>(gpu_new(sizeof(PredictionPlan), nullptr));
  p->arrivals = static_cast<std::uint32_t *>(gpu_new(sizeof zero, &zero));
  std::free(dirty);
}

Histories histories(const probe *p, bool plain) {
  Histories h = p->h;
  h.units = p->unit;
  h.predictor = p->predictor;
  h.plans = p->plan;
  h.arrivals = p->arrivals;
  h.plain = plain;
  return h;
}

}  // namespace

const char *probe_level_name(uint32_t level) { return level == 1 ? "cuda" : nullptr; }

probe *probe_new(const probe_shape *shape) {
  auto *p = static_cast<probe *>(std::calloc(1, sizeof(probe)));
  if (p == nullptr) std::abort();
  Histories &h = p->h;
  h.shape = PredictorShape{shape->rows, shape->rows + shape->rollback, shape->columns, shape->left,
                           shape->local, static_cast<HistoryForm>(shape->form), shape->floor};
  p->places = lay_out(h.shape);
  h.unit_bytes = p->places.bytes;
  h.heads = h.lists = h.period = 1;
  h.block_tokens = kBlockTokens;
  constexpr kvsift_type kArithmetic[] = {KVSIFT_F32, KVSIFT_I8, KVSIFT_BF16};
  h.arithmetic = kArithmetic[shape->arithmetic];
  h.counters = p->places.counters.bytes;
  h.states = p->places.states.bytes;
  h.marks = p->places.marks.bytes;
  h.lengths = p->places.lengths.bytes;
  h.ring = p->places.ring.bytes;
  h.s = p->places.s.bytes;
  h.filled = p->places.filled.bytes;
  h.scores = p->places.scores.bytes;
  allocate(p);
  reset(p, *shape);
  return p;
}

probe *probe_copy(const probe *p) {
  auto *q = static_cast<probe *>(std::malloc(sizeof(probe)));
  auto *bytes = static_cast<char *>(std::malloc(p->places.bytes));
  if (q == nullptr || bytes == nullptr) std::abort();
  *q = *p;
  gpu_read(bytes, p->unit, p->places.bytes);
  allocate(q);
  gpu_write(q->unit, bytes, p->places.bytes);
  q->predictor = static_cast<kvsift_predictor *>(gpu_new(sizeof(kvsift_predictor), nullptr));
  static kvsift_predictor predictor;
  gpu_read(&predictor, p->predictor, sizeof predictor);
  gpu_write(q->predictor, &predictor, sizeof predictor);
  std::free(bytes);
  return q;
}

void probe_free(probe *p) {
  gpu_free(p->unit);
  gpu_free(p->predictor);
  gpu_free(p->plan);
  gpu_free(p->arrivals);
  std::free(p);
}

void probe_append(probe *p, const float *shares, uint32_t columns) {
  const std::uint32_t least = (columns - 1) * kBlockTokens + 1;
  const std::uint32_t next = p->rows == 0 ? 0 : p->lengths[p->rows - 1] + 1;
  const std::uint32_t tokens = next > least ? next : least;
  p->lengths[p->rows++] = tokens;
  p->columns = columns;
  gpu_write(p->places.row.in(p->unit), shares, columns * sizeof(float));
  HistoryAppendArgs args{};
  args.histories = histories(p, false);
  args.peak = p->places.row.in(p->unit);
  args.rows = 1;
  args.tokens = tokens;
  kvsift_error error{};
  must(append_history(Launcher{device, gpu_stream(), &error}, args), error);
}

int probe_can_truncate(const probe *p, uint32_t rows) {
  const PredictorState state = read(p, p->places.states);
  if (rows > state.end - state.oldest) return 0;
  return state.oldest == 0 || state.end - rows - state.oldest >= p->h.shape.rows;
}

void probe_truncate(probe *p, uint32_t rows, uint32_t columns) {
  p->rows -= rows;
  p->columns = columns;
  kvsift_error error{};
  const HistoryTruncateArgs args{histories(p, false), p->lengths[p->rows - 1]};
  must(truncate_history(Launcher{device, gpu_stream(), &error}, args), error);
}

uint32_t probe_scores(probe *p, int plain, float *scores) {
  // Asked twice, it answers twice.
  Marks marks = read(p, p->places.marks);
  marks.scored = kNever;
  gpu_write(p->places.marks.in(p->unit), &marks, sizeof marks);
  kvsift_error error{};
  static PredictorPlanArgs plan;
  plan.histories = histories(p, plain != 0);
  plan.plan_for = kPlanAlways;
  static PredictorMeanArgs no_ranks;
  no_ranks.histories = plan.histories;
  must(predict(Launcher{device, gpu_stream(), &error}, plan, no_ranks), error);
  const PredictorShape &shape = p->h.shape;
  const std::uint32_t right = p->columns < shape.local ? 0 : p->columns - shape.local;
  if (right <= shape.left) return shape.left;
  gpu_read(scores + shape.left, p->places.scores.in(p->unit) + shape.left, (right - shape.left) * sizeof(float));
  return right;
}

uint32_t probe_rows(const probe *p) {
  const PredictorState state = read(p, p->places.states);
  const std::uint64_t begin = state.end < p->h.shape.rows ? 0 : state.end - p->h.shape.rows;
  return static_cast<std::uint32_t>(state.end - (begin > state.oldest ? begin : state.oldest));
}

float probe_share(const probe *p, uint32_t row, uint32_t column) {
  const PredictorState state = read(p, p->places.states);
  const PredictorShape &shape = p->h.shape;
  const std::uint64_t slot = (state.end - probe_rows(p) + row) % shape.slots;
  const std::uint64_t at = (slot * shape.columns + column) * share_bytes(shape.form);
  char share[4];
  gpu_read(share, p->places.ring.in(p->unit) + at, share_bytes(shape.form));
  switch (shape.form) {
    case HistoryForm::kHalf: {
      std::uint16_t bits;
      std::memcpy(&bits, share, sizeof bits);
      return float_of_half(bits);
    }
    case HistoryForm::kRoot8: {
      const float root = (static_cast<float>(static_cast<std::int8_t>(share[0])) + 128.0f) * (1.0f / 255.0f);
      return root * root;
    }
    default: {
      float value;
      std::memcpy(&value, share, sizeof value);
      return value;
    }
  }
}

void probe_counters(const probe *p, uint64_t *computed, uint64_t *total) {
  const PredictorState state = read(p, p->places.states);
  *computed = state.computed;
  *total = state.total;
}

int probe_has_bits(uint32_t arithmetic) { return arithmetic != 2; }

const float *probe_default_parameters() {
  static constexpr float kParametersInOrder[] = {
#include "predictor/default_weights.inc"
  };
  return kParametersInOrder;
}

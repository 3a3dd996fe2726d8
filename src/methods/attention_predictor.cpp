// AttentionPredictor: a small network reads the history of pooled attention rows and names the next token's blocks.
//
// Scores need no query: they may be computed as soon as the step's attention is known (predict), and select then only
// reads them. With a period of n they are computed at every n-th row, counted from the prompt's end; which row that is
// depends on nothing else, so that truncation and forks give what a straight run gives.
#include "methods/attention_predictor.h"

#include <cstring>

#include "policy/snapshot.h"

namespace kvsift {
namespace attention_predictor {
namespace {

HistoryForm form_of(const Settings &s) {
  if (s.c.history_type == KVSIFT_F16) return HistoryForm::kHalf;
  return s.c.history_type == KVSIFT_I8 ? HistoryForm::kRoot8 : HistoryForm::kFloat;
}

// Rows to go back to by truncation, and from there to the row that was last predicted from.
std::uint32_t slots_of(const Settings &s) {
  return s.c.history_rows + s.c.rollback_tokens + s.c.predict_period - 1;
}

Marks &marks_of(const HeadState &head) { return *head.state<Marks>(kMarks); }

}  // namespace

PredictorShape shape_of(const Settings &s) {
  PredictorShape shape;
  shape.rows = s.c.history_rows;
  shape.slots = slots_of(s);
  shape.columns = s.max_blocks;
  shape.left = s.c.sink_tokens / s.c.block_tokens;
  shape.local = s.c.local_tokens / s.c.block_tokens;
  shape.form = form_of(s);
  shape.floor = s.c.history_floor;
  return shape;
}

namespace {

PredictorHistory history_of(const HeadState &head, std::uint32_t list) {
  const Settings &s = head.settings();
  PredictorHistory h;
  h.shape = shape_of(s);
  const bool int8 = s.c.predictor_arithmetic == KVSIFT_I8;
  const kvsift_predictor &predictor = s.c.predictor == nullptr ? default_predictor() : *s.c.predictor;
  h.weights = &predictor.weights;
  h.codes = int8 ? &predictor.codes : nullptr;
  h.rounded = s.c.predictor_arithmetic == KVSIFT_BF16 ? &predictor.rounded : nullptr;
  h.kernels = &head.k().predictor;
  h.conv_strip = conv_strip_for(head.policy->level, int8, head.policy->multiplies_int8);
  h.state = head.state<PredictorState>(kStates) + list;
  const std::uint64_t row = std::uint64_t{s.max_blocks} * share_bytes(h.shape.form);
  h.ring = head.state<char>(kRing) + list * h.shape.slots * row;
  h.s = head.state<float>(kKept) + std::uint64_t{list} * h.shape.rows * s.max_blocks;
  h.filled = head.state<std::uint8_t>(kFilled) + std::uint64_t{list} * h.shape.rows * groups_of(s.max_blocks);
  return h;
}

float *scores_of(const HeadState &head, std::uint32_t list) {
  return head.state<float>(kScores) + std::uint64_t{list} * head.settings().max_blocks;
}

// Cache length of a row's query.
std::uint32_t &length_of(const HeadState &head, std::uint64_t row) {
  return head.state<std::uint32_t>(kLengths)[row % slots_of(head.settings())];
}

std::uint32_t columns_at(const HeadState &head, std::uint64_t rows) {
  return rows == 0 ? 0 : blocks_of(length_of(head, rows - 1), head.settings().c.block_tokens);
}

void defaults(kvsift_policy_config *c) {
  c->block_tokens = 16;
  c->budget_tokens = 1024;
  c->sink_tokens = 64;
  c->local_tokens = 64;
  c->dense_layers = 2;
  c->grouping = KVSIFT_GROUP_QUERY_HEAD;
  c->calibration_period = 5;
  c->history_rows = 64;
  c->history_type = KVSIFT_F32;
  c->predict_period = 1;
  c->predictor_arithmetic = KVSIFT_F32;
}

kvsift_status check(const kvsift_policy_config &c, kvsift_error *error) {
  if (c.history_rows < 5 || c.history_rows > 256) {
    return fail(error, KVSIFT_INVALID_ARGUMENT, "config.history_rows is ", c.history_rows, ", not in 5 .. 256");
  }
  if (c.history_type != KVSIFT_F32 && c.history_type != KVSIFT_F16 && c.history_type != KVSIFT_I8) {
    return fail(error, KVSIFT_INVALID_ARGUMENT, "config.history_type is ", c.history_type,
                ", not KVSIFT_F32, KVSIFT_F16 or KVSIFT_I8");
  }
  if (!(c.history_floor >= 0 && c.history_floor <= 1)) {
    const bool number = c.history_floor - c.history_floor == 0;
    return fail(error, number ? KVSIFT_INVALID_ARGUMENT : KVSIFT_NOT_FINITE, "config.history_floor is ", c.history_floor, ", not in 0 .. 1");
  }
  if (c.predict_period < 1 || c.predict_period > 256) {
    return fail(error, KVSIFT_INVALID_ARGUMENT, "config.predict_period is ", c.predict_period, ", not in 1 .. 256");
  }
  if (c.predictor_plain > 1) {
    return fail(error, KVSIFT_INVALID_ARGUMENT, "config.predictor_plain is ", c.predictor_plain, ", not 0 or 1");
  }
  if (c.predictor_arithmetic != KVSIFT_F32 && c.predictor_arithmetic != KVSIFT_BF16 && c.predictor_arithmetic != KVSIFT_I8) {
    return fail(error, KVSIFT_INVALID_ARGUMENT, "config.predictor_arithmetic is ", c.predictor_arithmetic,
                ", not KVSIFT_F32, KVSIFT_BF16 or KVSIFT_I8");
  }
  if (c.predictor != nullptr && c.predictor->magic != kPredictorMagic) {
    return fail(error, KVSIFT_INVALID_ARGUMENT, "config.predictor is not what kvsift_predictor_load made");
  }
  return KVSIFT_OK;
}

std::uint32_t prefill_rows(const Settings &s) { return s.c.history_rows; }

// The window that is predicted from ends with one of the newest `predict_period` rows.
std::uint32_t memory(const Settings &s) { return s.c.history_rows + s.c.predict_period - 1; }

void layout(UnitLayout *layout, const Settings &s) {
  const std::uint32_t slots = slots_of(s);
  layout->method[kStates] = layout->lasting<PredictorState>(s.lists, "history states");
  layout->method[kMarks] = layout->lasting<Marks>(1, "history marks");
  layout->method[kLengths] = layout->lasting<std::uint32_t>(slots, "history lengths");
  layout->method[kRing] =
      layout->growing<char>(s.lists * slots, share_bytes(form_of(s)), Grows::kBlocks, "history rows");
  layout->method[kKept] =
      layout->growing<float>(s.lists * s.c.history_rows, 1, Grows::kBlocks, "history network values");
  layout->method[kFilled] = layout->lasting<std::uint8_t>(
      std::uint64_t{s.lists} * s.c.history_rows * groups_of(s.max_blocks), "history network marks");
  layout->method[kScores] = layout->growing<float>(s.lists, 1, Grows::kBlocks, "predicted scores");
}

void reset(const HeadState &head) {
  for (std::uint32_t list = 0; list < head.settings().lists; ++list) predictor_reset(history_of(head, list));
  marks_of(head) = Marks{0, kNever, 0};
}

void observe(const HeadState &head, const Row &row) {
  const std::uint64_t end = history_of(head, 0).state->end;
  length_of(head, end) = row.tokens;
  // The histories lie far apart: what each of them waits for comes at once.
  for (std::uint32_t list = 0; list < head.settings().lists; ++list) {
    predictor_ask(history_of(head, list), end, row.blocks);
  }
  for (std::uint32_t list = 0; list < head.settings().lists; ++list) {
    predictor_append(history_of(head, list), row.peak + list * row.stride, row.blocks);
  }
  if (row.prompt) marks_of(head) = Marks{end + 1, kNever, 0};
}

// The rows that scores for the next token are computed from.
std::uint64_t rows_to_score(const HeadState &head) {
  const std::uint64_t end = history_of(head, 0).state->end, prompt_end = marks_of(head).prompt_end;
  return end - (end - prompt_end) % head.settings().c.predict_period;
}

void predict_list(const HeadState &head, std::uint32_t list, std::uint64_t rows, std::uint32_t columns) {
  const PredictorHistory h = history_of(head, list);
  const std::uint64_t end = h.state->end;
  const std::uint32_t all_columns = h.state->columns;
  const std::uint64_t computed = h.state->computed, total = h.state->total;
  float *scores = scores_of(head, list);
  // Rows after `rows` stay in the ring; the network just does not look at them.
  predictor_truncate(h, static_cast<std::uint32_t>(end - rows), columns);
  const std::uint32_t right = predictor_scores(h, head.settings().c.predictor_plain != 0, scores);
  // Sinks and local columns are not predicted: what the newest of these rows had there.
  const std::uint32_t newest = predictor_rows(h) - 1;
  const std::uint32_t left = h.shape.left < columns ? h.shape.left : columns;
  for (std::uint32_t j = 0; j < left; ++j) scores[j] = predictor_share(h, newest, j);
  for (std::uint32_t j = right; j < columns; ++j) scores[j] = predictor_share(h, newest, j);
  h.state->end = end;
  h.state->columns = all_columns;
  Counters &counters = head.unit->counters;
  counters.columns_computed += h.state->computed - computed;
  counters.columns_total += h.state->total - total;
}

void predict(const HeadState &head) {
  Marks &marks = marks_of(head);
  const std::uint64_t rows = rows_to_score(head);
  if (marks.scored == rows || rows == 0) return;
  const std::uint32_t columns = columns_at(head, rows);
  for (std::uint32_t list = 0; list < head.settings().lists; ++list) predict_list(head, list, rows, columns);
  marks.scored = rows;
  marks.columns = columns;
}

std::uint32_t score(const HeadState &head, const QueryRows &, std::uint32_t blocks, float *scores,
                    std::uint64_t stride) {
  predict(head);
  const Marks &marks = marks_of(head);
  if (marks.scored == kNever) return 0;
  const std::uint32_t all = columns_at(head, history_of(head, 0).state->end);
  const std::uint32_t columns = all < blocks ? all : blocks;
  for (std::uint32_t list = 0; list < head.settings().lists; ++list) {
    const PredictorHistory h = history_of(head, list);
    const std::uint32_t known = columns < marks.columns ? columns : marks.columns;
    std::memcpy(scores + list * stride, scores_of(head, list), known * sizeof(float));
    // Blocks opened since the prediction: what the newest row had there.
    for (std::uint32_t j = known; j < columns; ++j) {
      scores[list * stride + j] = predictor_share(h, predictor_rows(h) - 1, j);
    }
  }
  return columns;
}

// Rows of queries that saw more than `tokens` tokens.
std::uint32_t rows_beyond(const HeadState &head, std::uint32_t tokens) {
  const PredictorState &state = *history_of(head, 0).state;
  std::uint32_t rows = 0;
  while (state.end - rows > state.oldest && length_of(head, state.end - rows - 1) > tokens) ++rows;
  return rows;
}

bool can_truncate(const HeadState &head, std::uint32_t tokens) {
  const PredictorHistory h = history_of(head, 0);
  const std::uint32_t rows = rows_beyond(head, tokens);
  if (rows == 0) return true;
  const std::uint64_t prompt_end = marks_of(head).prompt_end;
  if (rows > head.settings().c.rollback_tokens || h.state->end - rows < prompt_end) return false;
  // The row that was last predicted from must stay as well.
  const std::uint64_t have = h.state->end - h.state->oldest, lag = rows + head.settings().c.predict_period - 1;
  return predictor_can_truncate(h, lag < have ? lag : have);
}

void truncate(const HeadState &head, std::uint32_t tokens) {
  const std::uint32_t rows = rows_beyond(head, tokens);
  if (rows == 0) return;
  const std::uint64_t end = history_of(head, 0).state->end - rows;
  for (std::uint32_t list = 0; list < head.settings().lists; ++list) {
    predictor_truncate(history_of(head, list), rows, columns_at(head, end));
  }
  Marks &marks = marks_of(head);
  if (marks.scored != kNever && marks.scored > end) marks.scored = kNever;
}

// Row numbers are compared with each other and taken modulo the ring; columns and lengths become indices.
bool sane(const Settings &s, const UnitPlaces &p, const UnitImage &image) {
  const auto marks = image.read<Marks>(p.method[kMarks], 0);
  const std::uint64_t reachable = std::uint64_t{s.c.history_rows} + s.c.predict_period - 1;
  for (std::uint32_t list = 0; list < s.lists; ++list) {
    const auto state = image.read<PredictorState>(p.method[kStates], list);
    const std::uint64_t end = state.end, oldest = state.oldest;
    if (end > s.c.max_tokens || oldest > end || end - oldest > slots_of(s)) return false;
    if (oldest > 0 && end - oldest < reachable) return false;
    if (state.columns > s.max_blocks || state.s_right > s.max_blocks || marks.prompt_end > end) return false;
    if (end != image.read<PredictorState>(p.method[kStates], 0).end) return false;
  }
  for (std::uint32_t i = 0; i < slots_of(s); ++i) {
    if (image.read<std::uint32_t>(p.method[kLengths], i) > s.c.max_tokens) return false;
  }
  return marks.columns <= s.max_blocks;
}

}  // namespace
}  // namespace attention_predictor

constexpr Method kAttentionPredictor = [] {
  using namespace attention_predictor;
  Method m{};
  m.name = "attention-predictor";
  m.defaults = defaults;
  m.check = check;
  m.needs = KVSIFT_NEEDS_ATTENTION;
  m.prefill_rows = prefill_rows;
  m.layout = layout;
  m.reset = reset;
  m.observe = observe;
  m.memory = memory;
  m.score = score;
  m.kind = ScoreKind::kShare;
  m.predict = predict;
  m.sane = sane;
  m.can_truncate = can_truncate;
  m.truncate = truncate;
  return m;
}();

}  // namespace kvsift

#include "cuda/methods/attention_predictor.h"

namespace kvsift {
namespace {

std::uint64_t room_at(const Call &call) { return call.image.room.method; }

template <class T>
T *in_room(const Call &call, Offset<T> offset) {
  return reinterpret_cast<T *>(call.image.base + room_at(call) + offset.bytes);
}

// What a history without rows is, by the CPU's own code.
PredictorState empty_state(const Settings &s) {
  const kvsift_predictor &predictor = s.c.predictor == nullptr ? default_predictor() : *s.c.predictor;
  const bool int8 = s.c.predictor_arithmetic == KVSIFT_I8, bf16 = s.c.predictor_arithmetic == KVSIFT_BF16;
  PredictorState state;
  PredictorHistory h{};
  h.shape = attention_predictor::shape_of(s);
  h.weights = &predictor.weights;
  h.codes = int8 ? &predictor.codes : nullptr;
  h.rounded = bf16 ? &predictor.rounded : nullptr;
  h.conv_strip = conv_strip_for(Level::scalar, int8, false);
  h.state = &state;
  predictor_reset(h);
  return state;
}

}  // namespace

PredictorRoom predictor_room(const Settings &s) {
  const std::uint64_t histories = std::uint64_t{s.c.kv_heads} * s.lists;
  Layout layout;
  PredictorRoom room{};
  room.predictor = layout.take<kvsift_predictor>(1, "predictor");
  room.plans = layout.take<PredictionPlan>(histories, "prediction plans");
  room.arrivals = layout.take<std::uint32_t>(histories, "prediction counters");
  room.scored = layout.take<std::uint32_t>(s.c.kv_heads, "predicted blocks");
  room.bytes = layout.used();
  return room;
}

Histories histories_of_call(const Call &call, std::uint32_t heads) {
  const Image &image = call.image;
  const Settings &s = image.s;
  const PredictorRoom room = predictor_room(s);
  Histories h = histories_of(s, image.at);
  const std::uint64_t unit = std::uint64_t{call.layer - s.c.dense_layers} * s.c.kv_heads + call.first_head;
  h.units = image.base + image.units + unit * image.at.bytes;
  h.heads = heads;
  h.predictor = in_room(call, room.predictor);
  h.plans = in_room(call, room.plans) + std::uint64_t{call.first_head} * s.lists;
  h.arrivals = in_room(call, room.arrivals) + std::uint64_t{call.first_head} * s.lists;
  return h;
}

kvsift_status reset_predictor(const Launcher &to, const Call &call, std::uint32_t heads) {
  const PredictorResetArgs args{histories_of_call(call, heads), empty_state(call.image.s)};
  return launch(to.device, kKernel_predictor_reset, LaunchShape{heads, 1, 1, 32, 0}, to.stream, args, to.error);
}

kvsift_status observe_predictor(const Launcher &to, const Call &call, std::uint32_t heads, const DeviceRows &rows) {
  HistoryAppendArgs args{};
  args.histories = histories_of_call(call, heads);
  args.peak = rows.peak;
  args.row_stride = rows.row_stride;
  args.head_stride = rows.head_stride;
  args.list_stride = rows.list_stride;
  args.rows = rows.rows;
  args.prompt = rows.prompt;
  args.learns_from = call.image.s.learns_from;
  args.tokens = call.tokens;
  if (call.tokens == 0) {
    args.tokens = 1;
    args.tokens_now = reinterpret_cast<const std::uint32_t *>(call.image.base + call.image.progress);
  }
  return append_history(to, args);
}

kvsift_status predict_next(const Launcher &to, const Call &call, std::uint32_t heads) {
  const Histories histories = histories_of_call(call, heads);
  const PredictorMeanArgs no_ranks{histories, nullptr, 0, 0, nullptr, call};
  return predict(to, PredictorPlanArgs{histories, call, kPlanForNext}, no_ranks);
}

kvsift_status score_predictor(const Launcher &to, const Call &call, std::uint32_t heads) {
  const Histories histories = histories_of_call(call, heads);
  const Image &image = call.image;
  PredictorMeanArgs ranks{histories, nullptr, image.scratch_floats, scratch_stride(image.s), nullptr, call};
  ranks.out = reinterpret_cast<float *>(image.base + image.scratch) + call.first_head * image.scratch_floats;
  ranks.scored = in_room(call, predictor_room(image.s).scored) + call.first_head;
  return predict(to, PredictorPlanArgs{histories, call, kPlanForCall}, ranks);
}

kvsift_status truncate_predictor(const Launcher &to, const Call &call, std::uint32_t heads, std::uint32_t tokens) {
  return truncate_history(to, HistoryTruncateArgs{histories_of_call(call, heads), tokens});
}

}  // namespace kvsift

#include "cuda/methods/method.h"

#include "cuda/attend/prefill.h"
#include "cuda/methods/accumulate.h"
#include "cuda/methods/attention_predictor.h"
#include "cuda/methods/balance.h"
#include "cuda/methods/kept.h"
#include "cuda/methods/page_scores.h"

namespace kvsift {
namespace {

std::uint64_t no_room(const Settings &) { return 0; }
std::uint32_t no_bytes(const Settings &) { return 0; }
std::uint64_t prefill_room(const Settings &s) { return prefill_places(s).bytes; }

kvsift_status score_predicted(const Launcher &to, const Call &call, std::uint32_t heads, const kvsift_query &) {
  return score_predictor(to, call, heads);
}

// Weights in use, where kernels find them.
kvsift_status create_predictor(const Launcher &to, const Image &image) {
  const Settings &s = image.s;
  const kvsift_predictor *predictor = s.c.predictor == nullptr ? &default_predictor() : s.c.predictor;
  const std::uint64_t at = image.room.method + predictor_room(s).predictor.bytes;
  const CUresult result = to.device.driver.to_device(reinterpret_cast<CUdeviceptr>(image.base) + at, predictor,
                                                     sizeof *predictor, static_cast<CUstream>(to.stream));
  return check(to.device.driver, result, "cuMemcpyHtoDAsync", to.error);
}

const std::uint32_t *predicted_blocks(const Call &call) {
  const std::uint64_t at = call.image.room.method + predictor_room(call.image.s).scored.bytes;
  return reinterpret_cast<const std::uint32_t *>(call.image.base + at) + call.first_head;
}

std::uint64_t predictor_and_prefill_room(const Settings &s) { return predictor_room(s).bytes + prefill_room(s); }

constexpr CudaMethod kPlain = {no_room, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, false, 0, false, no_bytes};

constexpr CudaMethod pages(kvsift_status (*score)(const Launcher &, const Call &, std::uint32_t, const kvsift_query &),
                           std::uint32_t (*bytes_of_block)(const Settings &)) {
  CudaMethod m = kPlain;
  m.score = score;
  m.ranks = true;
  m.bytes_of_block = bytes_of_block;
  return m;
}

// Methods whose state is their scores.
constexpr CudaMethod accumulating(kvsift_status (*observe)(const Launcher &, const Call &, std::uint32_t, const DeviceRows &)) {
  CudaMethod m = kPlain;
  m.room_bytes = prefill_room;
  m.observe = observe;
  m.ranks = true;
  m.state_rows = 1;
  return m;
}

constexpr CudaMethod kQuestOnDevice = pages(score_quest, bytes_of_bounds);
constexpr CudaMethod kPageStatsOnDevice = [] {
  CudaMethod m = pages(score_page_stats, bytes_of_moments);
  m.leaves_tail = true;
  return m;
}();
constexpr CudaMethod kH2oOnDevice = accumulating(observe_h2o), kEmaOnDevice = accumulating(observe_ema);
constexpr CudaMethod kUniformOnDevice = [] {
  CudaMethod m = kPlain;
  m.select = select_kept;
  return m;
}();
constexpr CudaMethod kVotesOnDevice = [] {
  CudaMethod m = kUniformOnDevice;
  m.room_bytes = prefill_room;
  m.observe = observe_votes;
  return m;
}();
constexpr CudaMethod kBalanceOnDevice = [] {
  CudaMethod m = kPlain;
  m.select = select_balance;
  return m;
}();
constexpr CudaMethod kPredictorOnDevice = [] {
  CudaMethod m = kPlain;
  m.room_bytes = predictor_and_prefill_room;
  m.create = create_predictor;
  m.reset = reset_predictor;
  m.score = score_predicted;
  m.leading = predicted_blocks;
  m.observe = observe_predictor;
  m.predict = predict_next;
  m.truncate = truncate_predictor;
  m.ranks = true;
  return m;
}();

}  // namespace

const CudaMethod *cuda_method_of(kvsift_method method) {
  switch (method) {
    case KVSIFT_METHOD_FULL:
    case KVSIFT_METHOD_STREAMING: return &kPlain;
    case KVSIFT_METHOD_H2O: return &kH2oOnDevice;
    case KVSIFT_METHOD_SNAPKV:
    case KVSIFT_METHOD_PYRAMIDKV: return &kVotesOnDevice;
    case KVSIFT_METHOD_UNIFORM: return &kUniformOnDevice;
    case KVSIFT_METHOD_QUEST: return &kQuestOnDevice;
    case KVSIFT_METHOD_PAGE_STATS: return &kPageStatsOnDevice;
    case KVSIFT_METHOD_EMA: return &kEmaOnDevice;
    case KVSIFT_METHOD_ATTENTION_PREDICTOR: return &kPredictorOnDevice;
    case KVSIFT_METHOD_BALANCE: return &kBalanceOnDevice;
    default: return nullptr;
  }
}

}  // namespace kvsift

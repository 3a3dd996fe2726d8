#include "cuda/predictor/predictor.h"

#include <cstddef>

namespace kvsift {
namespace {

std::uint32_t count_of(const Histories &h) { return h.heads * h.lists; }

std::uint32_t at_least_one(std::uint32_t n) { return n > 0 ? n : 1; }

struct Convolution {
  KernelId kernel;
  std::uint32_t resident;  // blocks on one multiprocessor
};

Convolution convolution_of(kvsift_type arithmetic) {
  if (arithmetic == KVSIFT_BF16) return {kKernel_predictor_convolve_bf16, 4};
  return {arithmetic == KVSIFT_I8 ? kKernel_predictor_convolve_int8 : kKernel_predictor_convolve, 5};
}

std::uint32_t divided(std::uint32_t n, std::uint32_t by) { return at_least_one((n + by - 1) / by); }

// Blocks of so many threads for the columns of each history: no more than fill the machine, since most of a capacity may be
// unused. The kernels loop.
std::uint32_t column_blocks(const Launcher &to, const Histories &h, std::uint32_t threads) {
  const std::uint32_t all = divided(h.shape.columns, threads), fill = divided(to.device.multiprocessors * 8, count_of(h));
  return all < fill ? all : fill;
}

}  // namespace

Histories histories_of(const Settings &s, const UnitOffsets &p) {
  using namespace attention_predictor;
  Histories h{};
  h.unit_bytes = p.bytes;
  h.lists = s.lists;
  h.counters = offsetof(Unit, counters);
  h.states = p.method[kStates];
  h.marks = p.method[kMarks];
  h.lengths = p.method[kLengths];
  h.ring = p.method[kRing];
  h.s = p.method[kKept];
  h.filled = p.method[kFilled];
  h.scores = p.method[kScores];
  h.shape = shape_of(s);
  h.block_tokens = s.c.block_tokens;
  h.period = s.c.predict_period;
  h.plain = s.c.predictor_plain;
  h.arithmetic = s.c.predictor_arithmetic;
  return h;
}

kvsift_status append_history(const Launcher &to, const HistoryAppendArgs &args) {
  const LaunchShape shape{column_blocks(to, args.histories, 256), count_of(args.histories), 1, 256, 0};
  return launch(to.device, kKernel_history_append, shape, to.stream, args, to.error);
}

kvsift_status truncate_history(const Launcher &to, const HistoryTruncateArgs &args) {
  const LaunchShape shape{args.histories.heads, 1, 1, 256, 0};
  return launch(to.device, kKernel_history_truncate, shape, to.stream, args, to.error);
}

kvsift_status predict(const Launcher &to, const PredictorPlanArgs &args, const PredictorMeanArgs &ranks) {
  const Histories &h = args.histories;
  const std::uint32_t histories = count_of(h);
  const LaunchShape plan{h.heads, 1, 1, h.lists < 8 ? 32 * h.lists : 256, 0};
  if (kvsift_status s = launch(to.device, kKernel_predictor_plan, plan, to.stream, args, to.error)) return s;
  const Convolution convolution = convolution_of(h.arithmetic);
  // Rounded down: a block that has to wait for another one's place takes as long again as all before it.
  const std::uint32_t blocks = at_least_one(to.device.multiprocessors * convolution.resident / histories);
  const LaunchShape convolve{blocks, histories, 1, 128, 0};
  if (kvsift_status s = launch(to.device, convolution.kernel, convolve, to.stream, PredictorConvolveArgs{h}, to.error)) return s;
  const LaunchShape mean{column_blocks(to, h, kMeanThreads), histories, 1, kMeanThreads, 0};
  return launch(to.device, kKernel_predictor_mean, mean, to.stream, ranks, to.error);
}

}  // namespace kvsift

// Predictor weights, from bytes to a handle; the profile of cheaper forms.
#include <new>

#include "core/arena.h"
#include "predictor/weights.h"

using namespace kvsift;

namespace {

std::uint64_t arena_bytes(Layout *layout) {
  layout->take<kvsift_predictor>(1, "predictor");
  return layout->used();
}

}  // namespace

kvsift_status kvsift_predictor_arena_size(uint64_t *bytes, uint64_t *alignment) {
  if (bytes == nullptr || alignment == nullptr) return KVSIFT_INVALID_ARGUMENT;
  Layout layout;
  *bytes = arena_bytes(&layout);
  *alignment = kAlign;
  return KVSIFT_OK;
}

kvsift_status kvsift_predictor_load(const void *data, uint64_t size, void *arena, uint64_t bytes,
                                    kvsift_predictor **predictor, kvsift_error *error) {
  if (predictor == nullptr) return fail(error, KVSIFT_INVALID_ARGUMENT, "predictor is null");
  *predictor = nullptr;
  if (data == nullptr) return fail(error, KVSIFT_INVALID_ARGUMENT, "data is null");
  if (arena == nullptr) return fail(error, KVSIFT_INVALID_ARGUMENT, "arena is null");
  if (reinterpret_cast<std::uintptr_t>(arena) % kAlign != 0) {
    return fail(error, KVSIFT_MISALIGNED, "arena must start at a multiple of ", kAlign);
  }
  Layout layout(bytes);
  arena_bytes(&layout);
  if (kvsift_status status = layout.check(error)) return status;
  PredictorWeights weights;
  if (kvsift_status status = read_weights(data, size, &weights, error)) return status;
  *predictor = new (arena) kvsift_predictor(predictor_of(weights));
  return KVSIFT_OK;
}

kvsift_status kvsift_policy_config_predictor_fast(kvsift_policy_config *config) {
  if (config == nullptr) return KVSIFT_INVALID_ARGUMENT;
  if (config->struct_size < sizeof *config) return KVSIFT_INVALID_STRUCT_SIZE;
  if (config->method != KVSIFT_METHOD_ATTENTION_PREDICTOR) {
    return fail(config->error, KVSIFT_UNSUPPORTED, "config.method is ", config->method,
                ": the profile is one of KVSIFT_METHOD_ATTENTION_PREDICTOR");
  }
  config->grouping = KVSIFT_GROUP_QUERY_HEAD;
  config->calibration_period = 8;
  config->calibration_dense = 0;
  config->history_floor = 0.003f;
  config->history_type = KVSIFT_F16;
  config->predictor_arithmetic = KVSIFT_I8;
  config->predict_period = 3;
  return KVSIFT_OK;
}

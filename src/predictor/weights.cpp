#include "predictor/weights.h"

#include <cstring>

#include "core/checksum.h"

namespace kvsift {
namespace {

constexpr float kDefaultParameters[] = {
#include "predictor/default_weights.inc"
};
static_assert(sizeof kDefaultParameters == sizeof(float) * kParameters, "4,833 parameters");

constexpr kvsift_predictor kDefaultPredictor = predictor_of(pack_weights(kDefaultParameters));

struct Header {
  char magic[8];
  std::uint32_t version;
  std::uint32_t parameters;
  std::uint64_t sum;
};
static_assert(sizeof(Header) == kWeightHeaderBytes, "no padding");

}  // namespace

const kvsift_predictor &default_predictor() { return kDefaultPredictor; }

kvsift_status read_weights(const void *data, std::uint64_t size, PredictorWeights *weights,
                           kvsift_error *error) {
  if (size != kWeightFileBytes) {
    return fail(error, KVSIFT_CORRUPT, "predictor weights of ", size, " bytes: ", kWeightFileBytes,
                " are needed");
  }
  Header header;
  std::memcpy(&header, data, sizeof header);
  if (std::memcmp(header.magic, "KVSIFTPW", 8) != 0) {
    return fail(error, KVSIFT_CORRUPT, "predictor weights: the magic is not KVSIFTPW");
  }
  if (header.version != 1) {
    return fail(error, KVSIFT_VERSION_MISMATCH, "predictor weights of version ", header.version,
                ": this library reads version 1");
  }
  if (header.parameters != kParameters) {
    return fail(error, KVSIFT_CORRUPT, "predictor weights with ", header.parameters,
                " parameters: there are ", kParameters);
  }
  const auto *payload = static_cast<const unsigned char *>(data) + sizeof header;
  if (checksum(payload, sizeof(float) * kParameters) != header.sum) {
    return fail(error, KVSIFT_CORRUPT, "predictor weights: the checksum does not match");
  }
  float parameters[kParameters];
  std::memcpy(parameters, payload, sizeof parameters);
  for (std::uint32_t i = 0; i < kParameters; ++i) {
    if (!(parameters[i] >= -kMostWeight && parameters[i] <= kMostWeight)) {
      return fail(error, KVSIFT_NOT_FINITE, "predictor weights: parameter ", i, " is ",
                  parameters[i], ", beyond +-", kMostWeight);
    }
  }
  *weights = pack_weights(parameters);
  return KVSIFT_OK;
}

}  // namespace kvsift

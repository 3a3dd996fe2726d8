// The predictor's 4,833 parameters: as files have them, and packed as the kernels read them.
#pragma once

#include <cstdint>

#include "core/status.h"
#include "kernels/element.h"
#include "kvsift/kvsift.h"

namespace kvsift {

constexpr std::uint32_t kMiddle = 16;   // channels after the first convolution
constexpr std::uint32_t kDeep = 32;     // channels after the second
constexpr std::uint32_t kTaps = 9;      // of a 3x3 kernel; row (time) by row, oldest first
constexpr std::uint32_t kReach = 2;     // rows and columns that two convolutions look to each side
constexpr std::uint32_t kParameters =
    kMiddle * kTaps + kMiddle + kDeep * kMiddle * kTaps + kDeep + kDeep + 1;

struct alignas(64) PredictorWeights {
  float conv1[kTaps][kMiddle];
  float bias1[kMiddle];
  float conv2[kTaps][kMiddle][kDeep];
  float bias2[kDeep];
  float conv3[kDeep];
  float bias3;
};

// Packs parameters in file order: conv1.weight, conv1.bias, conv2.weight, conv2.bias, conv3.weight, conv3.bias, each
// with output channels outermost.
constexpr PredictorWeights pack_weights(const float *p) {
  PredictorWeights w{};
  for (std::uint32_t c = 0; c < kMiddle; ++c)
    for (std::uint32_t t = 0; t < kTaps; ++t) w.conv1[t][c] = *p++;
  for (std::uint32_t c = 0; c < kMiddle; ++c) w.bias1[c] = *p++;
  for (std::uint32_t o = 0; o < kDeep; ++o)
    for (std::uint32_t c = 0; c < kMiddle; ++c)
      for (std::uint32_t t = 0; t < kTaps; ++t) w.conv2[t][c][o] = *p++;
  for (std::uint32_t o = 0; o < kDeep; ++o) w.bias2[o] = *p++;
  for (std::uint32_t o = 0; o < kDeep; ++o) w.conv3[o] = *p++;
  w.bias3 = *p;
  return w;
}

// The second convolution in int8. Its input is what the middle channels have beyond the values that an empty history
// gives them, and those values' own contribution is known: `base`.
struct alignas(64) PredictorCodes {
  std::int8_t conv2[kTaps][kMiddle / 4][kDeep][4];  // four middle channels of a deep one side by side
  float scale[kDeep];
  std::int32_t sum[kTaps][kDeep];  // of each tap's codes
  float middle[kMiddle];        // of an empty history
  float base[4][3][kDeep];      // as EmptyScores: by missing rows, by side of the crop
};

constexpr std::int8_t round_code(float x) {
  return static_cast<std::int8_t>(x < 0 ? -static_cast<int>(0.5f - x) : static_cast<int>(x + 0.5f));
}

// What the middle channels of an empty history give deep channel `out`, tap by tap.
constexpr void code_base(const PredictorWeights &w, std::uint32_t out, PredictorCodes *codes) {
  for (std::uint32_t rows = 0; rows < 4; ++rows) {
    for (std::uint32_t side = 0; side < 3; ++side) {
      double base = static_cast<double>(w.bias2[out]);
      for (std::uint32_t t = 0; t < kTaps; ++t) {
        const bool no_row = (t < 3 && (rows & 1) != 0) || (t >= 6 && (rows & 2) != 0);
        const bool no_column = (t % 3 == 0 && side == 1) || (t % 3 == 2 && side == 2);
        if (no_row || no_column) continue;
        double tap = 0;
        for (std::uint32_t c = 0; c < kMiddle; ++c) {
          tap += static_cast<double>(w.conv2[t][c][out]) * static_cast<double>(codes->middle[c]);
        }
        base += tap;
      }
      codes->base[rows][side][out] = static_cast<float>(base);
    }
  }
}

constexpr PredictorCodes code_weights(const PredictorWeights &w) {
  PredictorCodes codes{};
  for (std::uint32_t c = 0; c < kMiddle; ++c) codes.middle[c] = w.bias1[c] > 0 ? w.bias1[c] : 0;
  for (std::uint32_t o = 0; o < kDeep; ++o) {
    float most = 0;
    for (std::uint32_t i = 0; i < kTaps * kMiddle; ++i) {
      const float weight = w.conv2[i / kMiddle][i % kMiddle][o], size = weight < 0 ? -weight : weight;
      most = size > most ? size : most;
    }
    codes.scale[o] = most / 127;
    for (std::uint32_t t = 0; t < kTaps && most > 0; ++t) {
      for (std::uint32_t c = 0; c < kMiddle; ++c) {
        const std::int8_t code = round_code(w.conv2[t][c][o] / most * 127);
        codes.conv2[t][c / 4][o][c % 4] = code;
        codes.sum[t][o] += code;
      }
    }
    code_base(w, o, &codes);
  }
  return codes;
}

// The second convolution in bf16: its weights to the nearest, ties to even.
struct alignas(64) PredictorRounded {
  BF16 conv2[kTaps][kMiddle][kDeep];
  BF16 turned[kTaps][kDeep][kMiddle];  // the same, as tensor cores take them
};

constexpr BF16 round_weight(float x) {
  const std::uint32_t bits = __builtin_bit_cast(std::uint32_t, x);
  return {static_cast<std::uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16)};
}

constexpr PredictorRounded round_weights(const PredictorWeights &w) {
  PredictorRounded rounded{};
  for (std::uint32_t t = 0; t < kTaps; ++t) {
    for (std::uint32_t c = 0; c < kMiddle; ++c) {
      for (std::uint32_t o = 0; o < kDeep; ++o) {
        rounded.conv2[t][c][o] = rounded.turned[t][o][c] = round_weight(w.conv2[t][c][o]);
      }
    }
  }
  return rounded;
}

// A weight file, little-endian:
//
//     | "KVSIFTPW" | u32 version = 1 | u32 parameters = 4833 | u64 checksum of the floats | float32 [4833] |
constexpr std::uint64_t kWeightHeaderBytes = 24;
constexpr std::uint64_t kWeightFileBytes = kWeightHeaderBytes + sizeof(float) * kParameters;

// Beyond this a score of a history within [0, 1] could leave float32.
constexpr float kMostWeight = 1e6f;

// Reads a weight file that nothing is known about; `weights` is written only on success.
kvsift_status read_weights(const void *data, std::uint64_t size, PredictorWeights *weights,
                           kvsift_error *error);

constexpr std::uint64_t kPredictorMagic = 0x3157504946495356ull;

}  // namespace kvsift

// What kvsift_predictor_load places in its arena.
struct kvsift_predictor {
  std::uint64_t magic;
  kvsift::PredictorWeights weights;
  kvsift::PredictorCodes codes;
  kvsift::PredictorRounded rounded;
};

namespace kvsift {

constexpr kvsift_predictor predictor_of(const PredictorWeights &weights) {
  return {kPredictorMagic, weights, code_weights(weights), round_weights(weights)};
}

const kvsift_predictor &default_predictor();

}  // namespace kvsift

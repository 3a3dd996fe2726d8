// A cache compressed on the device, and how well its signs balance.
#pragma once

#include "kvsift/kvsift_cuda.h"
#include "lender.h"
#include "stored.h"

#include <setjmp.h>
#include <stdarg.h>
extern "C" {
#include <cmocka.h>
}

namespace kvsift_test {

inline kvsift_cache cache_of(const kvsift_view &keys, const kvsift_view &values, std::uint32_t tokens) {
  kvsift_cache cache{};
  cache.struct_size = sizeof cache;
  cache.tokens = tokens;
  cache.keys = keys;
  cache.values = values;
  return cache;
}

// A cache compressed on the device: head by head, `capacity` tokens each.
struct Compressed {
  std::uint32_t heads, capacity;
  std::uint64_t bytes = 0;
  OnDevice<char> room;
  OnDevice<std::uint32_t> there, counts_there;
  OnDevice<float> weights_there;
  Buffer<std::uint32_t> index, counts;
  Buffer<float> weight;

  static std::uint64_t room_of(const kvsift_balance_config &c, std::uint32_t heads, std::uint32_t tokens) {
    std::uint64_t bytes = 0;
    assert_int_equal(kvsift_cuda_balance_room(&c, heads, tokens, &bytes), KVSIFT_OK);
    return bytes;
  }
  Compressed(const kvsift_balance_config &c, std::uint32_t h, std::uint32_t tokens)
      : heads(h), capacity(tokens >> c.halvings), bytes(room_of(c, h, tokens)), room(bytes), there(h * capacity), counts_there(h),
        weights_there(h * capacity), index(h * capacity), counts(h), weight(h * capacity) {}

  kvsift_status prepare(const Lender &lender, const kvsift_balance_config &c, std::uint32_t tokens) const {
    return kvsift_cuda_balance_prepare(lender.policy, &c, heads, tokens, room.data, bytes, gpu_stream());
  }
  kvsift_status run(const Lender &lender, const kvsift_balance_config &c, const kvsift_cache &cache) const {
    return kvsift_cuda_balance_compress(lender.policy, &c, &cache, 0, heads, kvsift_range{0, cache.tokens}, room.data, bytes,
                                        there.data, weights_there.data, capacity, counts_there.data, gpu_stream());
  }
  void read() const {
    there.read(index.data);
    weights_there.read(weight.data);
    counts_there.read(counts.data);
  }
};

constexpr std::uint32_t kTokens = 1024, kHeads = 4, kDim = 64, kGroup = 256;

inline double dot(const float *a, const float *b) {
  double sum = 0;
  for (std::uint32_t c = 0; c < kDim; ++c) sum += double{a[c]} * double{b[c]};
  return sum;
}

// sum_{i,j} sign_i sign_j K(i, j) over sum_i K(i, i), mean over groups: 1 for fair coins, less where signs balance. The
// rows are float32, [token][head][dim]; tokens kept have sign +1.
inline double imbalance(const kvsift_balance_config &c, const Stored &keys, const Stored &values, const Compressed &kept) {
  const auto row = [](const Stored &of, std::uint32_t token, std::uint32_t head) {
    return reinterpret_cast<const float *>(of.host) + (std::size_t{token} * kHeads + head) * kDim;
  };
  const double scale = double{c.temperature} / std::sqrt(double{kDim});
  double total = 0;
  for (std::uint32_t h = 0; h < kHeads; ++h) {
    float sign[kTokens];
    for (float &s : sign) s = -1.0f;
    for (std::uint32_t i = 0; i < kept.capacity; ++i) sign[kept.index.data[h * kept.capacity + i]] = 1.0f;
    for (std::uint32_t first = 0; first < kTokens; first += kGroup) {
      float centred[kGroup][kDim];
      for (std::uint32_t d = 0; d < kDim; ++d) {
        double mean = 0;
        for (std::uint32_t i = 0; i < kGroup; ++i) mean += double{row(keys, first + i, h)[d]} / kGroup;
        for (std::uint32_t i = 0; i < kGroup; ++i) centred[i][d] = static_cast<float>(double{row(keys, first + i, h)[d]} - mean);
      }
      double sum = 0, own = 0;
      for (std::uint32_t i = 0; i < kGroup; ++i) {
        for (std::uint32_t j = 0; j < kGroup; ++j) {
          const double k = std::exp(scale * dot(centred[i], centred[j])) *
                           (dot(row(values, first + i, h), row(values, first + j, h)) + double{c.value_offset});
          sum += double{sign[first + i]} * double{sign[first + j]} * k;
          if (i == j) own += k;
        }
      }
      total += sum / own / (kHeads * kTokens / kGroup);
    }
  }
  return total;
}

// Mean relative error of attention over what was kept.
inline double estimator_error(const Stored &keys, const Stored &values, const Compressed &kept) {
  Random random{99};
  const kvsift_cache cache = cache_of(keys.view, values.view, kTokens);
  std::uint32_t all[kTokens];
  float ones[kTokens];
  for (std::uint32_t i = 0; i < kTokens; ++i) all[i] = i, ones[i] = 1.0f;
  const kvsift_weighted whole{all, ones, kTokens, 0};
  double total = 0;
  for (std::uint32_t h = 0; h < kHeads; ++h) {
    const std::size_t first = std::size_t{h} * kept.capacity;
    const kvsift_weighted part{kept.index.data + first, kept.weight.data + first, kept.counts.data[h], 0};
    for (std::uint32_t q = 0; q < 16; ++q) {
      float query[kDim], full[kDim], estimate[kDim];
      double difference = 0, size = 0;
      for (float &x : query) x = random.uniform() * 2.0f;
      assert_int_equal(kvsift_balance_attend(kDim, 0.0f, query, &cache, h, &whole, nullptr, full, nullptr), KVSIFT_OK);
      assert_int_equal(kvsift_balance_attend(kDim, 0.0f, query, &cache, h, &part, nullptr, estimate, nullptr), KVSIFT_OK);
      for (std::uint32_t c = 0; c < kDim; ++c) {
        difference += (double{estimate[c]} - double{full[c]}) * (double{estimate[c]} - double{full[c]});
        size += double{full[c]} * double{full[c]};
      }
      total += std::sqrt(difference / size) / (16 * kHeads);
    }
  }
  return total;
}

}  // namespace kvsift_test

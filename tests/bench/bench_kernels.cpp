// Kernels and attention of one head group against what this machine can read and multiply.
// Llama-3.1-8B geometry: 8 KV heads of 4 query heads, head dimension 128, float16. One thread. JSON
// on stdout.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <initializer_list>

#include "attend/attend.h"
#include "core/half.h"
#include "kernels/kernels.h"
#include "peak.h"

using namespace kvsift;

namespace {

constexpr std::uint32_t kGroup = 4, kDim = 128, kKvHeads = 8;

struct Cache {
  std::uint32_t tokens;
  std::uint16_t *keys, *values;  // [token][KV head][kDim]
  kvsift_view key_view, value_view;
};

std::uint16_t *random_halves(std::size_t n) {
  auto *p = static_cast<std::uint16_t *>(std::aligned_alloc(64, n * 2));
  if (p == nullptr) std::abort();
  std::uint32_t state = 1;
  for (std::size_t i = 0; i < n; ++i) {
    state = state * 1664525u + 1013904223u;
    p[i] = half_of_float(static_cast<float>(state >> 8) * 0x1p-23f - 1.0f);
  }
  return p;
}

Cache make_cache(std::uint32_t tokens) {
  const std::size_t n = static_cast<std::size_t>(tokens) * kKvHeads * kDim;
  Cache cache{tokens, random_halves(n), random_halves(n), {}, {}};
  cache.key_view.data = cache.keys;
  cache.key_view.type = KVSIFT_F16;
  cache.key_view.token_stride = kDim * 2;
  cache.key_view.head_stride = static_cast<std::uint64_t>(tokens) * kDim * 2;
  cache.value_view = cache.key_view;
  cache.value_view.data = cache.values;
  return cache;
}

// Seconds that f(h) takes for one KV head h; heads take turns, so that each comes from memory. The
// best of what fits into `budget` seconds: short runs, so that other programs' turns on the core
// fall out.
template <class F>
double best_time(double budget, F f) {
  double best = 1e30, total = 0;
  for (std::uint32_t run = 0; run < 2 * kKvHeads || total < budget; ++run) {
    const double start = bench_seconds();
    f(run % kKvHeads);
    const double t = bench_seconds() - start;
    if (t < best) best = t;
    total += t;
  }
  return best;
}

double read_bandwidth(const Cache &cache) {
  const std::size_t words = static_cast<std::size_t>(cache.tokens) * kDim / 4;
  volatile std::uint64_t sink = 0;
  const double t = best_time(0.5, [&](std::uint32_t h) {
    std::uint64_t sum[32] = {};
    for (const std::uint16_t *half : {cache.keys, cache.values}) {
      const auto *p = reinterpret_cast<const std::uint64_t *>(half) + h * words;
      for (std::size_t i = 0; i + 32 <= words; i += 32)
        for (std::size_t j = 0; j < 32; ++j) sum[j] += p[i + j];
    }
    for (const std::uint64_t s : sum) sink = sink + s;
  });
  return 2.0 * static_cast<double>(words) * 8 / t;
}

double peak_flops(Level level) {
  const std::uint64_t rounds = 50000;
  double lanes = 0;
  const double t = best_time(0.2, [&](std::uint32_t) {
    volatile float sink = 0;
#if defined(__x86_64__)
    sink = level == Level::avx512 ? peak_avx512(rounds) : peak_avx2(rounds);
    lanes = level == Level::avx512 ? 16 : 8;
#else
    (void)level;
    sink = peak_plain(rounds);
    lanes = 4;
#endif
    (void)sink;
  });
  return 2 * lanes * PEAK_CHAINS * static_cast<double>(rounds) / t;
}

struct Bench {
  Level level;
  const Kernels *k;
  double bandwidth, flops;
  bool first = true;

  // `roof` is the least time the machine could need.
  void report(const char *what, double seconds, double bytes, double operations) {
    const double roof =
        bytes / bandwidth > operations / flops ? bytes / bandwidth : operations / flops;
    std::printf(
        "%s\n      {\"kernel\": \"%s\", \"microseconds\": %.1f, \"gb_per_s\": %.2f, "
        "\"gflop_per_s\": %.1f, \"roofline_share\": %.3f}",
        first ? "" : ",", what, seconds * 1e6, bytes / seconds * 1e-9, operations / seconds * 1e-9,
        roof / seconds);
    std::fflush(stdout);
    first = false;
  }
};

void bench_attention(Bench &bench, const Cache &cache, const float *queries) {
  static float out[kGroup * kDim], log_sums[kGroup];
  const std::uint32_t blocks = (cache.tokens + 15) / 16;
  auto *block_max = static_cast<float *>(std::malloc(sizeof(float) * kGroup * blocks));
  auto *block_mass = static_cast<float *>(std::malloc(sizeof(float) * kGroup * blocks));
  if (block_max == nullptr || block_mass == nullptr) std::abort();
  const double tokens = cache.tokens, row = kDim * 2, flops = 2.0 * kGroup * kDim;
  const auto run = [&](std::uint32_t h, bool observe) {
    const HeadRows keys{&cache.key_view, nullptr, 0, h}, values{&cache.value_view, nullptr, 0, h};
    const Head head{bench.k, queries, kGroup, kDim, 0.088388f, keys, values};
    const kvsift_range all{0, cache.tokens};
    const std::uint32_t one = 1;
    Attended result{out, log_sums, nullptr, nullptr, blocks, 16, blocks, JoinedShares{}, nullptr};
    if (observe) {
      result.block_max = block_max;
      result.block_mass = block_mass;
    }
    attend(head, Lists{&all, &one, 1, false}, Tail{}, result);
  };
  const double bytes = tokens * 2 * row, operations = tokens * 2 * flops;
  bench.report("attend", best_time(0.5, [&](std::uint32_t h) { run(h, false); }), bytes,
               operations);
  bench.report("attend_observed", best_time(0.5, [&](std::uint32_t h) { run(h, true); }), bytes,
               operations);
  std::free(block_max);
  std::free(block_mass);
}

// Chunks of 256 rows, all over the cache.
void bench_rows(Bench &bench, const Cache &cache, const float *queries) {
  static float logits[kGroup * 256], acc[kGroup * kDim];
  const std::uint32_t rows = cache.tokens / 256 * 256;
  const double bytes = static_cast<double>(rows) * kDim * 2, flops = 2.0 * kGroup * kDim * rows;
  const auto each_chunk = [&](const std::uint16_t *data, std::uint32_t h, bool same, auto f) {
    const std::uint16_t *head = data + static_cast<std::size_t>(h) * cache.tokens * kDim;
    for (std::uint32_t at = 0; at < rows; at += 256) {
      const std::uint16_t *first = same ? data : head + static_cast<std::size_t>(at) * kDim;
      f(Rows{reinterpret_cast<const std::uint8_t *>(first), KVSIFT_F16, kDim * 2, nullptr, 0});
    }
  };
  const auto dot = [&](const Rows &chunk) {
    bench.k->attention.dot_rows(queries, kGroup, chunk, 256, kDim, 0.1f, logits, 256);
  };
  const auto sum = [&](const Rows &chunk) {
    bench.k->attention.weighted_sum(logits, 256, kGroup, chunk, 256, kDim, acc);
  };
  const auto time = [&](const std::uint16_t *data, bool same, auto f) {
    return best_time(0.3, [&](std::uint32_t h) { each_chunk(data, h, same, f); });
  };
  bench.report("dot_rows", time(cache.keys, false, dot), bytes, flops);
  bench.report("dot_rows_in_cache", time(cache.keys, true, dot), 0, flops);
  std::memset(logits, 0, sizeof logits);
  bench.report("weighted_sum", time(cache.values, false, sum), bytes, flops);
  bench.report("weighted_sum_in_cache", time(cache.values, true, sum), 0, flops);
}

// Values of the cache stand for int8 pages; the weighted sum in floats is what whole numbers are measured against.
void bench_page_values(Bench &bench, const Cache &cache) {
  static float weights[kGroup * 256], acc[kGroup * kDim];
  const std::uint32_t pages = cache.tokens / 256 * 256;
  auto *scales = static_cast<float *>(std::malloc(sizeof(float) * pages));
  if (scales == nullptr) std::abort();
  for (std::uint32_t i = 0; i < pages; ++i) scales[i] = 0.01f;
  for (std::uint32_t i = 0; i < kGroup * 256; ++i) weights[i] = static_cast<float>(i % 7) * 0.1f;
  const auto each_chunk = [&](std::uint32_t h, auto f) {
    const auto *first = reinterpret_cast<const std::uint8_t *>(cache.values) + static_cast<std::size_t>(h) * pages * kDim;
    for (std::uint32_t at = 0; at < pages; at += 256)
      f(Rows{first + static_cast<std::size_t>(at) * kDim, KVSIFT_I8, kDim, scales + at, sizeof(float)});
  };
  const auto time = [&](auto f) { return best_time(0.3, [&](std::uint32_t h) { each_chunk(h, f); }); };
  const double bytes = static_cast<double>(pages) * kDim, flops = 2.0 * kGroup * kDim * pages;
  bench.report("page_values_int8", time([&](const Rows &chunk) {
                 bench.k->page.coded_values(weights, 256, kGroup, chunk, 256, kDim, acc, Ahead{});
               }), bytes, flops);
  bench.report("page_values_int8_by_floats", time([&](const Rows &chunk) {
                 bench.k->attention.weighted_sum(weights, 256, kGroup, chunk, 256, kDim, acc);
               }), bytes, flops);
  std::free(scales);
}

// Keys and values of the cache stand for mean and deviation rows.
void bench_pages(Bench &bench, const Cache &cache, const float *queries) {
  std::uint32_t pages = cache.tokens;
  auto *out = static_cast<float *>(std::malloc(sizeof(float) * 2 * kGroup * pages));
  if (out == nullptr) std::abort();
  const double n = static_cast<double>(pages), bytes = n * 2 * kDim * 2;
  const auto time = [&](auto f) {
    return best_time(0.3, [&](std::uint32_t h) {
      f(cache.keys + static_cast<std::size_t>(h) * pages * kDim,
        cache.values + static_cast<std::size_t>(h) * pages * kDim);
    });
  };
  auto *scales = static_cast<float *>(std::malloc(sizeof(float) * pages));
  if (scales == nullptr) std::abort();
  for (std::uint32_t i = 0; i < pages; ++i) scales[i] = 0.01f;
  kvsift_type type = KVSIFT_F16;
  bool vnni = false;
  const auto logits = [&](std::uint16_t *mean, std::uint16_t *deviation) {
    const Moments moments{kDim, 16, pages * 16, type, mean, deviation, nullptr, scales, scales, nullptr, vnni};
    moment_logits(*bench.k, queries, kGroup, 0.1f, moments, 0, pages, out, nullptr, pages);
  };
  const auto bounds = [&](std::uint16_t *low, std::uint16_t *high) {
    const Rows a{reinterpret_cast<std::uint8_t *>(low), KVSIFT_F16, kDim * 2, nullptr, 0};
    const Rows b{reinterpret_cast<std::uint8_t *>(high), KVSIFT_F16, kDim * 2, nullptr, 0};
    bench.k->page.bounds(queries, kGroup, a, b, pages, kDim, 0.1f, out, pages);
  };
  // The same few pages again and again.
  const auto in_cache = [&](auto f) {
    return best_time(0.3, [&](std::uint32_t) {
      for (std::uint32_t at = 0; at < cache.tokens; at += pages) f(cache.keys, cache.values);
    });
  };
  bench.report("moment_logits", time(logits), bytes, n * kGroup * kDim * 4);
  bench.report("bounds", time(bounds), bytes, n * kGroup * kDim * 2);
  type = KVSIFT_I8;
  for (int forms = machine_multiplies_int8(bench.level) ? 2 : 1; forms > 0; --forms) {
    pages = cache.tokens;
    vnni = forms == 2;
    bench.report(vnni ? "moment_logits_int8_vnni" : "moment_logits_int8", time(logits), bytes / 2, n * kGroup * kDim * 4);
    pages = 256;
    bench.report(vnni ? "moment_logits_int8_vnni_in_cache" : "moment_logits_int8_in_cache", in_cache(logits), 0,
                 n * kGroup * kDim * 4);
  }
  type = KVSIFT_F16;
  pages = 32;
  bench.report("moment_logits_in_cache", in_cache(logits), 0, n * kGroup * kDim * 4);
  bench.report("bounds_in_cache", in_cache(bounds), 0, n * kGroup * kDim * 2);
  std::free(scales);
  std::free(out);
}

}  // namespace

int main(int argc, char **argv) {
  const std::uint32_t tokens =
      argc > 1 ? static_cast<std::uint32_t>(std::strtoul(argv[1], nullptr, 10)) : 32768;
  if (tokens < 256 || tokens > 1u << 20) {
    std::fprintf(stderr, "usage: %s [tokens, 256 to 1048576]\n", argv[0]);
    return 2;
  }
  const Cache cache = make_cache(tokens);
  float queries[kGroup * kDim];
  for (std::uint32_t i = 0; i < kGroup * kDim; ++i)
    queries[i] = static_cast<float>(i % 7) * 0.1f - 0.3f;
  const double bandwidth = read_bandwidth(cache);
  std::printf(
      "{\"tokens\": %u, \"kv_heads\": %u, \"group\": %u, \"head_dim\": %u, \"type\": \"f16\",\n"
      " \"read_gb_per_s\": %.2f,\n \"levels\": [",
      tokens, kKvHeads, kGroup, kDim, bandwidth * 1e-9);
  bool first = true;
  for (std::uint32_t l = 1; l < kLevels; ++l) {
    const Level level = static_cast<Level>(l);
    if (kernels(level) == nullptr || !machine_has(level)) continue;
    Bench bench{level, kernels(level), bandwidth, peak_flops(level)};
    std::printf("%s\n  {\"level\": \"%s\", \"peak_gflop_per_s\": %.1f, \"kernels\": [",
                first ? "" : ",", level_name(level), bench.flops * 1e-9);
    bench_attention(bench, cache, queries);
    bench_rows(bench, cache, queries);
    bench_pages(bench, cache, queries);
    bench_page_values(bench, cache);
    std::printf("]}");
    first = false;
  }
  std::printf("]}\n");
  return 0;
}

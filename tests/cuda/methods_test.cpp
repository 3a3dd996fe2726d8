// Methods that learn from attention: the state on the device against that of a CPU policy, byte for byte, over prompts and
// decode steps of random shapes.
#include "cuda/attend/prefill.h"
#include "cuda/methods/accumulate.h"
#include "cuda/methods/kept.h"
#include "kernel_cases.h"
#include "methods/method.h"
#include "policy_on_device.h"
#include "stored.h"

#include <setjmp.h>
#include <stdarg.h>
extern "C" {
#include <cmocka.h>
}

using namespace kvsift_test;

namespace {

CudaDevice device;

struct Observer {
  kvsift_method method;
  ObserveRows observe;
};
constexpr Observer kObservers[] = {{KVSIFT_METHOD_H2O, observe_h2o},
                                   {KVSIFT_METHOD_EMA, observe_ema},
                                   {KVSIFT_METHOD_SNAPKV, observe_votes},
                                   {KVSIFT_METHOD_PYRAMIDKV, observe_votes},
                                   {KVSIFT_METHOD_UNIFORM, nullptr},
                                   {KVSIFT_METHOD_ATTENTION_PREDICTOR, observe_predictor}};

kvsift_policy_config random_config(Random &random, kvsift_method method) {
  kvsift_policy_config c{};
  c.struct_size = sizeof c;
  kvsift_error error{};
  must(kvsift_policy_config_init(&c, method), error);
  constexpr std::uint32_t kBlocks[] = {1, 4, 16, 24, 256};
  c.layers = 3;
  c.dense_layers = 1;
  c.kv_heads = 1 + random.below(2);
  c.query_heads = c.kv_heads * (1 + random.below(3));
  c.head_dim = 1 + random.below(70);
  c.max_tokens = 640;
  c.grouping = random.below(3);
  c.block_tokens = kBlocks[random.below(method == KVSIFT_METHOD_ATTENTION_PREDICTOR ? 4 : 5)];
  if (method == KVSIFT_METHOD_ATTENTION_PREDICTOR && c.block_tokens == 1) c.block_tokens = 8;
  // Eviction is not part of observing.
  c.budget_tokens = method == KVSIFT_METHOD_H2O ? c.max_tokens : 100 + random.below(100);
  c.dense_tokens = random.below(3) == 0 ? 150 + random.below(100) : KVSIFT_DENSE_OFF;
  c.sink_tokens = random.below(40);
  c.local_tokens = 1 + random.below(40);
  c.window = 1 + random.below(20);
  c.pool_kernel = 1 + 2 * random.below(4);
  c.history_rows = 5 + random.below(20);
  constexpr kvsift_type kForms[] = {KVSIFT_F32, KVSIFT_F16, KVSIFT_I8};
  c.history_type = kForms[random.below(3)];
  c.history_floor = random.below(2) == 0 ? 0.0f : 1e-3f;
  c.predict_period = 1 + random.below(3);
  c.predictor_arithmetic = random.below(2) == 0 ? KVSIFT_F32 : KVSIFT_I8;
  c.rollback_tokens = method == KVSIFT_METHOD_ATTENTION_PREDICTOR ? 6 : 0;
  return c;
}

constexpr std::uint32_t kLayer = 1;

// A prompt chunk of `tokens` tokens up to `end`, on both sides.
void prompt_chunk(Random &random, const Twins &twins, const Observer &observer, std::uint32_t tokens, std::uint32_t end,
                  const Stored &keys) {
  const Settings &s = twins.settings();
  const Stored queries(random, random.below(2) == 0 ? KVSIFT_F32 : KVSIFT_F16, tokens, s.c.query_heads, s.c.head_dim, 0);
  kvsift_query query{};
  query.struct_size = sizeof query;
  query.tokens = end;
  query.rows = tokens;
  query.view = queries.view;
  kvsift_cache cache{};
  cache.struct_size = sizeof cache;
  cache.tokens = end;
  cache.keys = cache.values = keys.view;
  auto *out = static_cast<float *>(std::malloc(sizeof(float) * tokens * s.c.query_heads * s.c.head_dim));
  kvsift_error error{};
  if (kvsift_prefill_attend(twins.policy(), kLayer, &query, &cache, out) != KVSIFT_OK) fail_msg("%s", kvsift_last_error(twins.policy()));
  std::free(out);
  twins.share_progress();
  if (observer.observe == nullptr) {
    assert_int_equal(kvsift_advance(twins.policy(), tokens), KVSIFT_OK);
    twins.share_progress();
    return;
  }
  PrefillJob job{query, cache, method_of(s.c.method)->prefill_rows(s), (s.needs & KVSIFT_NEEDS_MASS) != 0};
  job.query.view = queries.there();
  job.cache.keys = job.cache.values = keys.there();
  char *room = twins.room() + predictor_room(s).bytes;
  must(prefill_rows(Launcher{device, gpu_stream(), &error}, twins.call(kLayer, end), s.c.kv_heads, job, room, observer.observe),
       error);
  assert_int_equal(twins.differs(kLayer, 0), -1);
  assert_int_equal(twins.fault(), 0);
  assert_int_equal(kvsift_advance(twins.policy(), tokens), KVSIFT_OK);
  twins.share_progress();
}

// One decode step whose pooled rows the CPU left in its scratch.
void decode_step(Random &random, const Twins &twins, const Observer &observer, std::uint32_t tokens) {
  const Settings &s = twins.settings();
  auto *rows = static_cast<float *>(std::calloc(std::uint64_t{s.c.query_heads} * tokens, sizeof(float)));
  const std::uint32_t thin = 1 + random.below(30);
  for (std::uint64_t i = 0; i < std::uint64_t{s.c.query_heads} * tokens; ++i) {
    if (random.below(thin) == 0) rows[i] = std::fabs(random.uniform());
  }
  kvsift_query query{};
  query.struct_size = sizeof query;
  query.tokens = tokens;
  kvsift_selection selection{};
  selection.struct_size = sizeof selection;
  kvsift_observation seen{};
  seen.struct_size = sizeof seen;
  seen.tokens = tokens;
  seen.rows = rows;
  seen.row_stride = tokens;
  if (kvsift_select_blocks(twins.policy(), kLayer, &query, &selection) != KVSIFT_OK) fail_msg("%s", kvsift_last_error(twins.policy()));
  kvsift_error error{};
  const bool predicts = observer.method == KVSIFT_METHOD_ATTENTION_PREDICTOR;
  if (predicts) must(score_predictor(Launcher{device, gpu_stream(), &error}, twins.call(kLayer, 0), s.c.kv_heads), error);
  if (kvsift_observe_attention(twins.policy(), kLayer, nullptr, &seen) != KVSIFT_OK) fail_msg("%s", kvsift_last_error(twins.policy()));
  std::free(rows);
  twins.share_progress();
  const float *scratch = reinterpret_cast<const float *>(twins.device() + twins.inside()->scratch.bytes);
  const std::uint64_t stride = scratch_stride(s);
  const DeviceRows pooled{scratch, scratch + s.group * stride, 0, twins.inside()->scratch_floats, stride, 1, 0, 0};
  // The graph form: the length comes from the policy's counters.
  must(observer.observe(Launcher{device, gpu_stream(), &error}, twins.call(kLayer, 0), s.c.kv_heads, pooled), error);
}

std::uint64_t state_begin(const Twins &twins) { return twins.inside()->places.step_begin; }

void predict_on_both(const Twins &twins) {
  kvsift_error error{};
  assert_int_equal(kvsift_predict_next(twins.policy(), kLayer, nullptr), KVSIFT_OK);
  must(predict_next(Launcher{device, gpu_stream(), &error}, twins.call(kLayer, 0), twins.settings().c.kv_heads), error);
}

void truncate_both(const Twins &twins, std::uint32_t tokens) {
  kvsift_error error{};
  if (kvsift_truncate(twins.policy(), tokens) != KVSIFT_OK) fail_msg("%s", kvsift_last_error(twins.policy()));
  must(truncate_predictor(Launcher{device, gpu_stream(), &error}, twins.call(kLayer, 0), twins.settings().c.kv_heads, tokens),
       error);
}

// What select ranks, against the CPU's.
void compare_scores(const Twins &twins, std::uint32_t tokens) {
  const Settings &s = twins.settings();
  kvsift_error error{};
  must(score_predictor(Launcher{device, gpu_stream(), &error}, twins.call(kLayer, tokens), s.c.kv_heads), error);
  const PredictorRoom places = predictor_room(s);
  for (std::uint32_t i = 0; i < s.c.kv_heads; ++i) {
    const HeadState head = head_of(twins.inside(), kLayer, i);
    const Scratch scratch = head.scratch();
    const std::uint32_t blocks = method_of(s.c.method)->score(head, QueryRows{nullptr, tokens}, blocks_of(tokens, s.c.block_tokens),
                                                              scratch.scores, scratch.stride);
    std::uint32_t scored;
    gpu_read(&scored, places.scored.in(twins.room()) + i, sizeof scored);
    assert_int_equal(scored, blocks);
    auto *got = static_cast<float *>(std::malloc(blocks * sizeof(float)));
    for (std::uint32_t list = 0; list < s.lists; ++list) {
      const std::uint64_t at = twins.inside()->scratch.bytes +
                               (i * twins.inside()->scratch_floats + list * scratch.stride) * sizeof(float);
      gpu_read(got, twins.device() + at, blocks * sizeof(float));
      assert_memory_equal(got, scratch.scores + list * scratch.stride, blocks * sizeof(float));
    }
    std::free(got);
  }
}

// A step of a method that decides once: the same lists, the same state.
void select_on_both(const Twins &twins, std::uint32_t tokens) {
  kvsift_query query{};
  query.struct_size = sizeof query;
  query.tokens = tokens;
  kvsift_selection selection{};
  selection.struct_size = sizeof selection;
  if (kvsift_select_blocks(twins.policy(), kLayer, &query, &selection) != KVSIFT_OK) fail_msg("%s", kvsift_last_error(twins.policy()));
  kvsift_error error{};
  must(select_kept(Launcher{device, gpu_stream(), &error}, twins.call(kLayer, 0), twins.settings().c.kv_heads), error);
  assert_true(twins.same_lists());
  assert_int_equal(twins.differs(kLayer, 0), -1);
  assert_int_equal(kvsift_advance(twins.policy(), 1), KVSIFT_OK);
  twins.share_progress();
}

void run_case(std::uint32_t seed, const Observer &observer) {
  Random random{seed * 7919u + 1};
  const kvsift_policy_config config = random_config(random, observer.method);
  kvsift_policy_config probe = config;
  kvsift_error error{};
  Settings settings;
  probe.error = &error;
  if (settle(probe, &settings) != KVSIFT_OK) return;
  const Twins twins(config, predictor_room(settings).bytes + prefill_places(settings).bytes);
  const Settings &s = twins.settings();
  const bool predicts = observer.method == KVSIFT_METHOD_ATTENTION_PREDICTOR;
  if (predicts) {
    const kvsift_predictor &predictor = default_predictor();
    gpu_write(predictor_room(s).predictor.in(twins.room()), &predictor, sizeof predictor);
    must(reset_predictor(Launcher{device, gpu_stream(), &error}, twins.call(kLayer, 1), s.c.kv_heads), error);
    assert_int_equal(twins.differs(kLayer, 0), -1);
  }
  const Stored keys(random, kTypes[random.below(4)], config.max_tokens, config.kv_heads, config.head_dim, random.below(2));
  std::uint32_t tokens = 0;
  for (std::uint32_t chunk = 1 + random.below(2); chunk > 0; --chunk) {
    const std::uint32_t more = 1 + random.below(random.below(3) == 0 ? 300 : 40);
    tokens += more;
    prompt_chunk(random, twins, observer, more, tokens, keys);
  }
  const bool keeps = method_of(config.method)->keep != nullptr;
  for (std::uint32_t step = 0; step < 12; ++step) {
    if (keeps) {
      select_on_both(twins, ++tokens);
      continue;
    }
    decode_step(random, twins, observer, ++tokens);
    assert_int_equal(twins.differs(kLayer, state_begin(twins)), -1);
    if (predicts && random.below(3) != 0) {
      predict_on_both(twins);
      assert_int_equal(twins.differs(kLayer, state_begin(twins)), -1);
    }
    assert_int_equal(kvsift_advance(twins.policy(), 1), KVSIFT_OK);
    twins.share_progress();
    if (predicts && random.below(2) == 0 && !attends_to_all(s, tokens + 1)) compare_scores(twins, tokens + 1);
    if (!predicts || step < 6 || random.below(3) != 0) continue;
    tokens -= 1 + random.below(3);
    truncate_both(twins, tokens);
    assert_int_equal(twins.differs(kLayer, state_begin(twins)), -1);
    twins.share_progress();
  }
}

void states_are_the_cpus(void **) {
  for (const Observer &observer : kObservers) {
    for (std::uint32_t seed = 0; seed < 6; ++seed) {
      print_message("method %u, seed %u\n", observer.method, seed);
      run_case(seed, observer);
    }
  }
}

}  // namespace

int main() {
  if (!gpu_open()) return 77;
  kvsift_error error{};
  must(open_device(&device, &error), error);
  const CMUnitTest tests[] = {cmocka_unit_test(states_are_the_cpus)};
  const int failures = cmocka_run_group_tests(tests, nullptr, nullptr);
  close_device(&device);
  return failures;
}

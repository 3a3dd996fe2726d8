#include "device_session.h"

#include <stdio.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cases.h"
#include "gpu.h"
#include "state_difference.h"

static device_rows *copy_rows(const toy_rows *rows, uint32_t layers) {
  if (rows == NULL) return NULL;
  device_rows *copies = calloc(layers, sizeof *copies);
  for (uint32_t i = 0; i < layers; ++i) {
    copies[i].data = gpu_new(rows[i].bytes, rows[i].view.data);
    if (rows[i].view.scales != NULL) copies[i].scales = gpu_new(rows[i].scale_bytes, rows[i].view.scales);
  }
  return copies;
}

static void free_rows(device_rows *rows, uint32_t layers) {
  for (uint32_t i = 0; rows != NULL && i < layers; ++i) {
    gpu_free(rows[i].data);
    gpu_free(rows[i].scales);
  }
  free(rows);
}

kvsift_cuda_arenas device_arenas(const kvsift_policy_config *config) {
  kvsift_cuda_sizes sizes = {.struct_size = sizeof sizes};
  kvsift_cuda_arenas arenas = {.struct_size = sizeof arenas};
  if (kvsift_cuda_policy_sizes(config, &sizes) != KVSIFT_OK) return arenas;
  arenas.device = gpu_new(sizes.device, NULL);
  arenas.device_bytes = sizes.device;
  arenas.pinned = gpu_new_pinned(sizes.pinned);
  arenas.pinned_bytes = sizes.pinned;
  arenas.host = aligned_alloc(KVSIFT_ARENA_ALIGNMENT, sizes.host);
  arenas.host_bytes = sizes.host;
  memset(arenas.host, 0xa5, sizes.host);
  return arenas;
}

void device_arenas_free(kvsift_cuda_arenas *arenas) {
  gpu_free(arenas->device);
  gpu_free_pinned(arenas->pinned);
  free(arenas->host);
}

#define must_on(d, status) expect((status) == KVSIFT_OK, "%s", kvsift_cuda_last_error((d)->policy))

device_session *device_session_new(const kvsift_policy_config *config, const toy *t) {
  kvsift_error error = {0};
  device_session *d = calloc(1, sizeof *d);
  d->toy = t;
  d->config = *config;
  d->config.error = &error;
  d->arenas = device_arenas(&d->config);
  if (d->arenas.device == NULL) {
    expect(error.status == KVSIFT_UNSUPPORTED, "sizes: %s", error.message);
    free(d);
    return NULL;
  }
  const kvsift_status status = kvsift_cuda_policy_create(&d->config, &d->arenas, gpu_stream(), &d->policy);
  expect(status == KVSIFT_OK, "create: %s", error.message);
  d->config.error = NULL;
  kvsift_policy_info info = {.struct_size = sizeof info};
  must_on(d, kvsift_cuda_policy_get_info(d->policy, &info));
  d->needs = info.needs;
  d->queries = copy_rows(t->queries, t->layers);
  d->keys = copy_rows(t->keys, t->layers);
  d->values = copy_rows(t->values, t->layers);
  d->paged_keys = copy_rows(t->paged_keys, t->layers);
  d->paged_values = copy_rows(t->paged_values, t->layers);
  if (t->table != NULL) d->table = gpu_new(sizeof(int32_t) * t->pages * (t->form.table_per_head ? t->kv_heads : 1), t->table);
  d->block_stride = (config->max_tokens + config->block_tokens - 1) / config->block_tokens;
  d->out = gpu_new(4ull * config->query_heads * config->head_dim, NULL);
  d->block_max = gpu_new(4ull * config->query_heads * d->block_stride, NULL);
  d->block_mass = gpu_new(4ull * config->query_heads * d->block_stride, NULL);
  d->log_sum_exp = gpu_new(4ull * config->query_heads, NULL);
  return d;
}

void device_session_free(device_session *d) {
  if (d == NULL) return;
  gpu_wait();
  must_on(d, kvsift_cuda_policy_destroy(d->policy));
  device_arenas_free(&d->arenas);
  free_rows(d->queries, d->toy->layers);
  free_rows(d->keys, d->toy->layers);
  free_rows(d->values, d->toy->layers);
  free_rows(d->paged_keys, d->toy->layers);
  free_rows(d->paged_values, d->toy->layers);
  gpu_free(d->table);
  gpu_free(d->out);
  gpu_free(d->block_max);
  gpu_free(d->block_mass);
  gpu_free(d->log_sum_exp);
  free(d);
}

/* The toy's view with the pointers moved to the device. */
static kvsift_view moved(kvsift_view view, const toy_rows *rows, const device_rows *to) {
  view.data = (const uint8_t *)to->data + ((const uint8_t *)view.data - (const uint8_t *)rows->view.data);
  if (view.scales != NULL) {
    view.scales = (const float *)((const uint8_t *)to->scales +
                                  ((const uint8_t *)view.scales - (const uint8_t *)rows->view.scales));
  }
  return view;
}

kvsift_view device_view(const device_session *d, toy_kind kind, uint32_t layer, uint32_t first) {
  const toy_rows *rows = kind == TOY_QUERY ? d->toy->queries : kind == TOY_KEY ? d->toy->keys : d->toy->values;
  const device_rows *to = kind == TOY_QUERY ? d->queries : kind == TOY_KEY ? d->keys : d->values;
  return moved(toy_view(d->toy, kind, layer, first), &rows[layer], &to[layer]);
}

kvsift_cache device_cache(const device_session *d, uint32_t layer, uint32_t tokens) {
  kvsift_cache cache = toy_cache(d->toy, layer, tokens);
  if (d->table == NULL) {
    cache.keys = moved(cache.keys, &d->toy->keys[layer], &d->keys[layer]);
    cache.values = moved(cache.values, &d->toy->values[layer], &d->values[layer]);
  } else {
    cache.keys = moved(cache.keys, &d->toy->paged_keys[layer], &d->paged_keys[layer]);
    cache.values = moved(cache.values, &d->toy->paged_values[layer], &d->paged_values[layer]);
    cache.block_table = d->table;
  }
  return cache;
}

static kvsift_query device_query(const device_session *d, uint32_t layer, uint32_t tokens, uint32_t rows, uint32_t at) {
  kvsift_query q = {.struct_size = sizeof q, .tokens = tokens, .rows = rows};
  q.view = device_view(d, TOY_QUERY, layer, at - rows);
  return q;
}

static void give_keys(device_session *d, uint32_t layer, uint32_t first, uint32_t tokens, uint32_t at) {
  const kvsift_view keys = device_view(d, TOY_KEY, layer, at), values = device_view(d, TOY_VALUE, layer, at);
  must_on(d, kvsift_cuda_observe_keys(d->policy, layer, NULL, first, tokens, &keys, &values, gpu_stream()));
}

void device_prompt(device_session *d, uint32_t tokens) {
  const uint32_t end = d->tokens + tokens;
  for (uint32_t layer = 0; layer < d->config.layers && tokens > 0; ++layer) {
    give_keys(d, layer, d->tokens, tokens, d->tokens);
    const kvsift_query q = device_query(d, layer, end, tokens, end);
    const kvsift_cache cache = device_cache(d, layer, end);
    must_on(d, kvsift_cuda_observe_prompt(d->policy, layer, &q, &cache, gpu_stream()));
  }
  device_advance(d, tokens);
}

void device_advance(device_session *d, uint32_t tokens) {
  must_on(d, kvsift_cuda_advance(d->policy, tokens, gpu_stream()));
  d->tokens += tokens;
}

void device_layer(device_session *d, uint32_t layer, uint32_t tokens, uint32_t at) {
  const kvsift_query q = device_query(d, layer, tokens, 1, at);
  const kvsift_cache cache = device_cache(d, layer, tokens);
  kvsift_observation o = {.struct_size = sizeof o, .block_stride = d->block_stride, .block_max = d->block_max,
                          .block_mass = d->block_mass, .log_sum_exp = d->log_sum_exp};
  if (!session_wants_max(d->needs, tokens)) o.block_max = NULL;
  give_keys(d, layer, tokens == 0 ? KVSIFT_CUDA_NEXT : at - 1, 1, at - 1);
  d->selection.struct_size = sizeof d->selection;
  must_on(d, kvsift_cuda_select_blocks(d->policy, layer, &q, &d->selection, gpu_stream()));
  must_on(d, kvsift_cuda_attend(d->policy, layer, &q, &cache, d->out, d->tolerance > 0 ? NULL : &o, gpu_stream()));
}

static void expect_same_floats(const float *cpu, const float *device, uint64_t count, const char *what, uint32_t layer,
                               uint32_t tokens) {
  float *got = malloc(count * sizeof *got);
  gpu_read(got, device, count * sizeof *got);
  for (uint64_t i = 0; i < count; ++i) {
    uint32_t a, b;
    memcpy(&a, cpu + i, sizeof a);
    memcpy(&b, got + i, sizeof b);
    expect(a == b, "%s of layer %u at %u tokens: element %llu is %a on the device, %a on the CPU", what, layer, tokens,
           (unsigned long long)i, (double)got[i], (double)cpu[i]);
  }
  free(got);
}

static void expect_near_floats(device_session *d, const float *cpu, uint64_t count, uint32_t layer, uint32_t tokens) {
  float *got = malloc(count * sizeof *got), most = 0;
  gpu_read(got, d->out, count * sizeof *got);
  for (uint64_t i = 0; i < count; ++i) most = fmaxf(most, fabsf(cpu[i]));
  for (uint64_t i = 0; i < count; ++i) {
    expect(fabsf(got[i] - cpu[i]) <= d->tolerance * most, "output of layer %u at %u tokens: element %llu is %.9g on the device, "
           "%.9g on the CPU, of at most %.9g", layer, tokens, (unsigned long long)i, (double)got[i], (double)cpu[i], (double)most);
    d->inexact += memcmp(got + i, cpu + i, sizeof *got) != 0;
  }
  free(got);
}

/* The coresets that stand for what the lists leave out. */
static void expect_same_coresets(device_session *d, const kvsift_selection *cpu, uint32_t layer, uint32_t tokens) {
  const kvsift_selection *device = &d->selection.lists;
  expect(device->tail == cpu->tail, "tail %u on the device, %u on the CPU", device->tail, cpu->tail);
  if (cpu->tail != KVSIFT_TAIL_BALANCE) return;
  expect(device->coreset_stride == cpu->coreset_stride, "coreset_stride");
  for (uint32_t head = 0; head < d->config.kv_heads; ++head) {
    const uint64_t at = (uint64_t)head * cpu->coreset_stride;
    uint32_t count;
    gpu_read(&count, device->coreset_counts + head, sizeof count);
    expect(count == cpu->coreset_counts[head], "%u coreset tokens on the device, %u on the CPU", count,
           cpu->coreset_counts[head]);
    uint32_t *got = malloc((count + 1) * sizeof *got);
    gpu_read(got, device->coreset + at, count * sizeof *got);
    for (uint32_t i = 0; i < count; ++i) {
      expect(got[i] == cpu->coreset[at + i], "coreset token %u is %u on the device, %u on the CPU", i, got[i],
             cpu->coreset[at + i]);
      d->weighted += cpu->coreset_weights[at + i] != 1.0f;
    }
    free(got);
    expect_same_floats(cpu->coreset_weights + at, device->coreset_weights + at, count, "coreset weight", layer, tokens);
  }
}

/* Called while the CPU's output of a layer stands. */
static void compare_prompt_layer(session *s, uint32_t layer, uint32_t tokens) {
  device_session *d = s->context;
  const uint32_t end = d->tokens + tokens;
  const uint64_t count = (uint64_t)tokens * d->config.query_heads * d->config.head_dim;
  float *out = gpu_new(4 * count, NULL);
  give_keys(d, layer, d->tokens, tokens, d->tokens);
  kvsift_query q = device_query(d, layer, end, tokens, end);
  const kvsift_cache cache = device_cache(d, layer, end);
  /* The last head by itself. */
  q.kv_heads = d->config.kv_heads - 1;
  if (q.kv_heads > 0) must_on(d, kvsift_cuda_prefill_attend(d->policy, layer, &q, &cache, out, gpu_stream()));
  q.first_kv_head = q.kv_heads;
  q.kv_heads = 1;
  must_on(d, kvsift_cuda_prefill_attend(d->policy, layer, &q, &cache, out, gpu_stream()));
  expect_same_floats(s->prompt_out, out, count, "prompt output", layer, end);
  gpu_free(out);
}

void prompt_both(session *s, device_session *d, uint32_t tokens) {
  s->look_prompt = compare_prompt_layer;
  s->context = d;
  session_prompt(s, tokens);
  device_advance(d, tokens);
  s->look_prompt = NULL;
}

static void expect_same_missed(device_session *d, const kvsift_selection *cpu, uint32_t layer, uint32_t tokens) {
  const kvsift_selection *device = &d->selection.lists;
  expect((cpu->missed == NULL) == (device->missed == NULL) && cpu->missed_stride == device->missed_stride, "missed blocks of "
         "layer %u at %u tokens: one side has none, or strides %u and %u", layer, tokens, cpu->missed_stride, device->missed_stride);
  for (uint32_t list = 0; list < cpu->lists && cpu->missed != NULL; ++list) {
    const uint64_t at = (uint64_t)list * cpu->missed_stride;
    uint32_t count, blocks[16];
    gpu_read(&count, device->missed_counts + list, sizeof count);
    expect(count == cpu->missed_counts[list] && count <= 16, "list %u of layer %u at %u tokens missed %u blocks on the device, "
           "%u on the CPU", list, layer, tokens, count, cpu->missed_counts[list]);
    gpu_read(blocks, device->missed + at, count * sizeof *blocks);
    for (uint32_t i = 0; i < count; ++i) {
      expect(blocks[i] == cpu->missed[at + i], "list %u of layer %u at %u tokens missed block %u on the device, %u on the CPU",
             list, layer, tokens, blocks[i], cpu->missed[at + i]);
    }
    d->missed += count;
  }
}

/* Called while the CPU's answer for a layer stands; the device does the layer, and its attention is fed back. */
static void compare_layer(session *s, const session_answer *answer) {
  device_session *d = s->context;
  const uint32_t layer = answer->layer, tokens = answer->tokens;
  device_layer(d, layer, tokens, tokens);
  kvsift_query q = device_query(d, layer, tokens, 1, tokens);
  expect_same_missed(d, answer->selection, layer, tokens);
  const kvsift_observation *cpu = answer->observation;
  expect_same_coresets(d, answer->selection, layer, tokens);
  ++d->checked;
  if (d->tolerance > 0) {
    expect_near_floats(d, answer->out, (uint64_t)s->config.query_heads * s->config.head_dim, layer, tokens);
    return;
  }
  const uint32_t blocks = (tokens + s->config.block_tokens - 1) / s->config.block_tokens;
  expect_same_floats(answer->out, d->out, (uint64_t)s->config.query_heads * s->config.head_dim, "output", layer, tokens);
  expect_same_floats(cpu->log_sum_exp, d->log_sum_exp, s->config.query_heads, "log-sum-exp", layer, tokens);
  for (uint32_t h = 0; h < s->config.query_heads; ++h) {
    const uint64_t at = (uint64_t)h * d->block_stride;
    if (cpu->block_max != NULL) expect_same_floats(cpu->block_max + at, d->block_max + at, blocks, "block maximum", layer, tokens);
    expect_same_floats(cpu->block_mass + at, d->block_mass + at, blocks, "block mass", layer, tokens);
  }
  kvsift_observation o = *cpu;
  if (o.block_max != NULL) o.block_max = d->block_max;
  o.block_mass = d->block_mass;
  o.log_sum_exp = d->log_sum_exp;
  must_on(d, kvsift_cuda_observe_attention(d->policy, layer, &q, &o, gpu_stream()));
}

void run_both(session *s, device_session *d, uint32_t steps) {
  s->look = compare_layer;
  s->context = d;
  for (; steps > 0; --steps) {
    session_steps(s, 1);
    device_advance(d, 1);
    if (d->tolerance == 0) expect_same_state(s, d);
  }
  s->look = NULL;
}

void expect_same_state(const session *s, const device_session *d) {
  session *copy = session_new(&s->config, s->toy);
  char difference[200];
  must_on(d, kvsift_cuda_download(d->policy, copy->policy, gpu_stream()));
  gpu_wait();
  expect(!state_difference(s->policy, copy->policy, difference, sizeof difference), "at %u tokens: %s", s->tokens, difference);
  session_free(copy);
}

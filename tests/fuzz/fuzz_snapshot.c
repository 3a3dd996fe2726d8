/* Snapshots from outside. Input: a byte that picks method and tail, a byte of modes, then patches (offset in two bytes,
 * value) of a good snapshot; the checksum is made right again (unless a mode says not to), so that what lies behind it is
 * reached. Loading refuses, or gives a policy that does its work within its memory and with valid lists. With
 * -DKVSIFT_REPLAY the program reads the files it is given instead of making inputs up. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kvsift/balance.h"

enum { LAYERS = 2, HEADS = 4, KV_HEADS = 2, DIM = 8, TOKENS = 96, PROMPT = 40, ROW = KV_HEADS * DIM };
/* Configurations, and as many again with BalanceKV's guard and grades. */
enum { PLAIN = 198 };
enum { BYTES_AT = 40, CHECKSUM_AT = 48, HEADER = 56 + sizeof(kvsift_policy_config) };

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

static float rows[TOKENS][HEADS * DIM];
static uint8_t *good, *image;
static void *arena;
static uint64_t arena_bytes, image_bytes;
static kvsift_policy_config config;
static uint32_t made = UINT32_MAX;

static void need(int condition) {
  if (!condition) abort();
}

static uint64_t checksum(const uint8_t *p, size_t size, uint64_t hash) {
  for (; size >= 8; size -= 8, p += 8) {
    uint64_t word;
    memcpy(&word, p, 8);
    hash = (hash ^ word) * 0x100000001b3u;
    hash ^= hash >> 32;
  }
  for (; size > 0; --size, ++p) hash = (hash ^ *p) * 0x100000001b3u;
  return hash;
}

static void repair(void) {
  uint64_t sum = 0;
  memcpy(image + CHECKSUM_AT, &sum, 8);
  sum = checksum(image + HEADER, image_bytes - HEADER, 0xcbf29ce484222325u);
  sum = checksum(image, HEADER, sum);
  memcpy(image + CHECKSUM_AT, &sum, 8);
}

static void configure(uint32_t which) {
  config = (kvsift_policy_config){.struct_size = sizeof config};
  need(kvsift_policy_config_init(&config, which % KVSIFT_METHOD_COUNT) == KVSIFT_OK);
  config.dense_tokens = KVSIFT_DENSE_OFF;
  config.layers = LAYERS;
  config.dense_layers = 0;
  config.query_heads = HEADS;
  config.kv_heads = KV_HEADS;
  config.head_dim = DIM;
  config.max_tokens = TOKENS;
  config.block_tokens = config.page_tokens = 4;
  config.budget_tokens = 24;
  config.sink_tokens = config.local_tokens = 4;
  config.window = 8;
  config.rollback_tokens = 3;
  config.history_rows = 6;
  config.balance_group = 32;
  config.coreset_tokens = 96;
  config.balance_guard = which / PLAIN;
  config.balance_form = which < PLAIN ? KVSIFT_BALANCE_PRACTICAL : KVSIFT_BALANCE_GRADED;
  which %= PLAIN;
  config.grouping = which / 33 % 3;
  config.tail = which / KVSIFT_METHOD_COUNT % 3;
  config.target_mass = which / 99 != 0 ? 0.5f : 0;
  if (config.method == KVSIFT_METHOD_BALANCE) config.tail = KVSIFT_TAIL_BALANCE;
}

static kvsift_view view_of(uint32_t first) {
  return (kvsift_view){.data = rows[first], .type = KVSIFT_F32, .token_stride = sizeof rows[0],
                       .head_stride = DIM * sizeof(float)};
}

static void check_lists(const kvsift_selection *sel) {
  for (uint32_t list = 0; list < sel->lists; ++list) {
    const kvsift_range *r = sel->ranges + (uint64_t)list * sel->range_stride;
    need(sel->range_counts[list] >= 1 && sel->range_counts[list] <= sel->range_stride);
    for (uint32_t i = 0; i < sel->range_counts[list]; ++i) {
      need(r[i].begin < r[i].end && r[i].end <= sel->tokens && (i == 0 || r[i].begin > r[i - 1].end));
    }
    need(sel->block_counts[list] <= sel->block_stride);
    for (uint32_t i = 0; i < sel->block_counts[list]; ++i) {
      need(sel->blocks[(uint64_t)list * sel->block_stride + i] * sel->block_tokens < sel->tokens);
    }
  }
}

/* One layer of a step; a loaded policy may refuse any call, in words. */
static int step_layer(kvsift_policy *p, uint32_t layer, uint32_t tokens) {
  static float out[HEADS * DIM], block_max[HEADS * TOKENS], block_mass[HEADS * TOKENS], sums[HEADS];
  const kvsift_view row = view_of(tokens - 1), all = view_of(0);
  const kvsift_query query = {.struct_size = sizeof query, .tokens = tokens, .view = row};
  const kvsift_cache cache = {.struct_size = sizeof cache, .tokens = tokens, .keys = all, .values = all};
  kvsift_selection sel = {.struct_size = sizeof sel};
  kvsift_observation o = {.struct_size = sizeof o, .block_stride = TOKENS, .block_max = block_max,
                          .block_mass = block_mass, .log_sum_exp = sums};
  (void)kvsift_observe_keys(p, layer, NULL, tokens - 1, 1, &row, &row);
  if (kvsift_select_blocks(p, layer, &query, &sel) != KVSIFT_OK) return 0;
  check_lists(&sel);
  if (kvsift_attend(p, layer, &query, &cache, &sel, out, &o) != KVSIFT_OK) return 0;
  (void)kvsift_observe_attention(p, layer, NULL, &o);
  return 1;
}

static void drive(kvsift_policy *p, uint32_t steps) {
  kvsift_policy_info info = {.struct_size = sizeof info};
  for (uint32_t i = 0; i < steps; ++i) {
    need(kvsift_policy_get_info(p, &info) == KVSIFT_OK && info.tokens <= TOKENS);
    for (uint32_t layer = 0; layer < LAYERS && info.tokens < TOKENS; ++layer) {
      if (!step_layer(p, layer, info.tokens + 1)) need(kvsift_last_error(p)[0] != '\0');
    }
    (void)kvsift_advance(p, 1);
    if (i % 4 == 2) (void)kvsift_truncate(p, info.tokens > 0 ? info.tokens - 1 : 0);
  }
}

static void prefill(kvsift_policy *p) {
  static float out[PROMPT * HEADS * DIM];
  const kvsift_view all = view_of(0);
  const kvsift_query query = {.struct_size = sizeof query, .tokens = PROMPT, .rows = PROMPT, .view = all};
  const kvsift_cache cache = {.struct_size = sizeof cache, .tokens = PROMPT, .keys = all, .values = all};
  for (uint32_t layer = 0; layer < LAYERS; ++layer) {
    need(kvsift_observe_keys(p, layer, NULL, 0, PROMPT, &all, &all) == KVSIFT_OK);
    need(kvsift_prefill_attend(p, layer, &query, &cache, out) == KVSIFT_OK);
  }
  need(kvsift_advance(p, PROMPT) == KVSIFT_OK);
}

/* A good snapshot of configuration `which`; 0 where this build does not have it. */
static int make_image(uint32_t which) {
  kvsift_policy *p = NULL;
  if (made == which) return 1;
  made = UINT32_MAX;
  for (uint32_t i = 0; i < TOKENS * HEADS * DIM; ++i) rows[i / (HEADS * DIM)][i % (HEADS * DIM)] = (float)(i * 2654435761u >> 22) / 512 - 1;
  configure(which);
  if (kvsift_policy_arena_size(&config, &arena_bytes, NULL) != KVSIFT_OK) return 0;
  free(arena);
  free(good);
  free(image);
  arena = aligned_alloc(64, arena_bytes);
  need(arena != NULL && kvsift_policy_create(&config, arena, arena_bytes, &p) == KVSIFT_OK);
  prefill(p);
  drive(p, 12);
  need(kvsift_snapshot_size(p, &image_bytes) == KVSIFT_OK);
  good = malloc(image_bytes);
  image = malloc(image_bytes);
  need(good != NULL && image != NULL && kvsift_snapshot_save(p, good, image_bytes, NULL) == KVSIFT_OK);
  made = which;
  return 1;
}

/* A snapshot that nobody touched must load, and what it loads saves to the same bytes. */
static void check_untouched(kvsift_policy *p) {
  uint64_t written;
  need(kvsift_snapshot_save(p, image, image_bytes, &written) == KVSIFT_OK && written == image_bytes);
  need(memcmp(image, good, image_bytes) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size) {
  if (size < 2 || !make_image(bytes[0] % PLAIN + (bytes[1] & 8 ? PLAIN : 0))) return 0;
  memcpy(image, good, image_bytes);
  for (size_t i = 2; i + 3 <= size; i += 3) {
    image[(bytes[i] | (uint32_t)bytes[i + 1] << 8) * (bytes[1] & 2 ? 7ull : 1) % image_bytes] = bytes[i + 2];
  }
  const int touched = memcmp(image, good, image_bytes) != 0;
  if ((bytes[1] & 1) == 0) repair();
  const uint64_t cut = bytes[1] & 4 ? image_bytes * bytes[1] / 256 : image_bytes;
  kvsift_policy *p = NULL;
  need(kvsift_policy_create(&config, arena, arena_bytes, &p) == KVSIFT_OK);
  const kvsift_status status = kvsift_snapshot_load(p, image, cut);
  need(status == KVSIFT_OK || kvsift_last_error(p)[0] != '\0');
  need(status == KVSIFT_OK || status == KVSIFT_CORRUPT || status == KVSIFT_VERSION_MISMATCH ||
       status == KVSIFT_CONFIG_MISMATCH);
  need(touched || cut < image_bytes || status == KVSIFT_OK);
  if (!touched && status == KVSIFT_OK) check_untouched(p);
  drive(p, 10);
  return 0;
}

#ifdef KVSIFT_REPLAY
int main(int count, char **paths) {
  static uint8_t bytes[1 << 16];
  for (int i = 1; i < count; ++i) {
    FILE *file = fopen(paths[i], "rb");
    if (file == NULL) {
      fprintf(stderr, "%s: cannot be read\n", paths[i]);
      return 1;
    }
    const size_t size = fread(bytes, 1, sizeof bytes, file);
    fclose(file);
    LLVMFuzzerTestOneInput(bytes, size);
  }
  printf("%d inputs replayed\n", count - 1);
  return 0;
}
#endif

/* What lies on a store's slow tier, damaged at will. Input: a byte of modes, then (offset, byte) patches of a good image;
 * the modes repair the checksums of the header and of the entries, so that what lies behind them is reached too. Opening
 * refuses or finds tokens; a row that is read is the one that was written. With -DKVSIFT_REPLAY the program reads the files
 * it is given instead of making inputs up. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kvsift/store.h"

enum { TOKENS = 64, DIM = 4, HEADS = 2, BLOCKS = 16, HEADER_SUM = 64, HEADER = 128, ENTRY = 64, ENTRY_SUM = 24 };

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

static uint8_t *good, *image;
static void *arena;
static uint64_t image_bytes, arena_bytes;

static void must(int condition) {
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

static kvsift_store_config config_of(uint8_t *memory, uint32_t verify, kvsift_error *error) {
  kvsift_store_config config = {.struct_size = sizeof config};
  must(kvsift_store_config_init(&config, KVSIFT_STORE_HOST) == KVSIFT_OK);
  config.layers = 1;
  config.kv_heads = HEADS;
  config.head_dim = DIM;
  config.max_tokens = TOKENS;
  config.block_tokens = 4;
  config.fast_blocks = 6;
  config.sink_tokens = config.local_tokens = 4;
  config.threads = 1;
  config.verify = verify;
  config.host_memory = memory;
  config.host_bytes = image_bytes;
  config.error = error;
  return config;
}

static void append(kvsift_store *store, uint32_t first, uint32_t tokens) {
  uint16_t rows[TOKENS][HEADS][DIM];
  for (uint32_t i = 0; i < tokens * HEADS * DIM; ++i) {
    rows[i / (HEADS * DIM)][i / DIM % HEADS][i % DIM] = (uint16_t)(first * HEADS * DIM + i);
  }
  const kvsift_view view = {.data = rows, .type = KVSIFT_F16, .token_stride = sizeof rows[0],
                            .head_stride = sizeof rows[0][0]};
  must(kvsift_store_append(store, 0, first, tokens, &view, &view) == KVSIFT_OK);
}

static void make_image(void) {
  kvsift_error error;
  kvsift_store *store = NULL;
  kvsift_store_config config = config_of(NULL, 1, &error);
  must(kvsift_store_slow_size(&config, &image_bytes) == KVSIFT_OK);
  must(kvsift_store_arena_size(&config, &arena_bytes, NULL) == KVSIFT_OK);
  good = (uint8_t *)aligned_alloc(64, (size_t)image_bytes);
  image = (uint8_t *)aligned_alloc(64, (size_t)image_bytes);
  arena = aligned_alloc(64, (size_t)arena_bytes);
  must(good != NULL && image != NULL && arena != NULL);
  memset(good, 0, image_bytes);
  config = config_of(good, 1, &error);
  must(kvsift_store_create(&config, arena, arena_bytes, &store) == KVSIFT_OK);
  append(store, 0, TOKENS);
  must(kvsift_store_close(store) == KVSIFT_OK);
}

static void repair(uint8_t modes) {
  uint64_t sum;
  if (modes & 1) {
    sum = checksum(image, HEADER_SUM, 0xcbf29ce484222325u);
    memcpy(image + HEADER_SUM, &sum, 8);
  }
  for (uint32_t b = 0; (modes & 2) && b < BLOCKS; ++b) {
    uint8_t *entry = image + HEADER + ENTRY * b;
    sum = checksum(entry + ENTRY_SUM + 8, 8 * HEADS, checksum(entry, ENTRY_SUM, 0xcbf29ce484222325u));
    memcpy(entry + ENTRY_SUM, &sum, 8);
  }
}

static void check_rows(kvsift_store *store, uint32_t tokens) {
  uint16_t rows[2][TOKENS][DIM];
  for (uint32_t h = 0; h < HEADS; ++h) {
    const kvsift_status status = kvsift_store_read(store, 0, h, 0, tokens, rows[0], rows[1], NULL, NULL);
    must(status == KVSIFT_OK || status == KVSIFT_CORRUPT);
    for (uint32_t i = 0; status == KVSIFT_OK && i < 2 * tokens * DIM; ++i) {
      const uint32_t t = i / DIM % tokens;
      must(rows[i / (tokens * DIM)][t][i % DIM] == (uint16_t)((t * HEADS + h) * DIM + i % DIM));
    }
  }
}

static void drive(kvsift_store *store) {
  kvsift_store_info info = {.struct_size = sizeof info};
  must(kvsift_store_get_info(store, &info) == KVSIFT_OK);
  must(info.tokens <= TOKENS && info.tokens % 4 == 0);
  check_rows(store, info.tokens);
  append(store, info.tokens, TOKENS - info.tokens);
  check_rows(store, TOKENS);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size) {
  if (good == NULL) make_image();
  if (size == 0) return 0;
  memcpy(image, good, image_bytes);
  for (size_t i = 1; i + 3 <= size; i += 3) {
    image[(bytes[i] | (uint32_t)bytes[i + 1] << 8) % image_bytes] = bytes[i + 2];
  }
  repair(bytes[0]);
  kvsift_error error = {0};
  kvsift_store *store = NULL;
  const kvsift_store_config config = config_of(image, bytes[0] >> 2 & 1, &error);
  const kvsift_status status = kvsift_store_open(&config, arena, arena_bytes, &store);
  must((status == KVSIFT_OK) == (store != NULL));
  must(status == KVSIFT_OK || error.message[0] != '\0');
  if (store == NULL) return 0;
  drive(store);
  must(kvsift_store_close(store) == KVSIFT_OK);
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
    LLVMFuzzerTestOneInput(bytes, fread(bytes, 1, sizeof bytes, file));
    fclose(file);
  }
  return count > 1 ? 0 : 1;
}
#endif

/* Predictor weights, on any bytes: as they come, and as the payload of a file whose header is right, so that what lies
 * behind the checksum is reached too. What loads must choose blocks of a small cache. With -DKVSIFT_REPLAY the program
 * reads the files it is given instead of making inputs up. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kvsift/kvsift.h"

enum { PARAMETERS = 4833, HEADER = 24, FILE_BYTES = HEADER + 4 * PARAMETERS, TOKENS = 200 };

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

static uint64_t checksum(const uint8_t *p, size_t size) {
  uint64_t hash = 0xcbf29ce484222325u;
  for (; size >= 8; size -= 8, p += 8) {
    uint64_t word;
    memcpy(&word, p, 8);
    hash = (hash ^ word) * 0x100000001b3u;
    hash ^= hash >> 32;
  }
  for (; size > 0; --size, ++p) hash = (hash ^ *p) * 0x100000001b3u;
  return hash;
}

static void must(int condition) {
  if (!condition) abort();
}

static void observe(kvsift_policy *policy, uint32_t tokens, int full) {
  float row[TOKENS];
  for (uint32_t t = 0; t < tokens; ++t) row[t] = full || t % 48 < 16 ? (float)(t % 7) / (float)tokens : 0;
  const kvsift_observation observation = {.struct_size = sizeof observation, .tokens = tokens, .full = (uint32_t)full,
                                          .rows = row, .row_stride = TOKENS};
  must(kvsift_observe_attention(policy, 0, NULL, &observation) == KVSIFT_OK);
}

static void drive(kvsift_policy *policy) {
  for (uint32_t tokens = 150; tokens <= 180; ++tokens) observe(policy, tokens, 1);
  must(kvsift_advance(policy, 180) == KVSIFT_OK);
  for (uint32_t tokens = 181; tokens < TOKENS; ++tokens) {
    const kvsift_query query = {.struct_size = sizeof query, .tokens = tokens};
    kvsift_selection selection = {.struct_size = sizeof selection};
    must(kvsift_select_blocks(policy, 0, &query, &selection) == KVSIFT_OK);
    must(selection.block_counts[0] > 0 && selection.range_counts[0] > 0);
    for (uint32_t i = 0; i < selection.range_counts[0]; ++i) {
      must(selection.ranges[i].begin < selection.ranges[i].end && selection.ranges[i].end <= tokens);
    }
    observe(policy, tokens, 0);
    must(kvsift_advance(policy, 1) == KVSIFT_OK);
  }
}

static void choose_with(const kvsift_predictor *predictor, kvsift_type arithmetic) {
  kvsift_policy_config config = {.struct_size = sizeof config};
  kvsift_policy *policy = NULL;
  uint64_t bytes = 0;
  must(kvsift_policy_config_init(&config, KVSIFT_METHOD_ATTENTION_PREDICTOR) == KVSIFT_OK);
  config.dense_tokens = KVSIFT_DENSE_OFF;
  config.layers = config.query_heads = config.kv_heads = 1;
  config.dense_layers = 0;
  config.head_dim = 4;
  config.max_tokens = TOKENS;
  config.sink_tokens = config.local_tokens = 16;
  config.budget_tokens = 96;
  config.history_rows = 8;
  config.predictor = predictor;
  config.predictor_arithmetic = arithmetic;
  must(kvsift_policy_arena_size(&config, &bytes, NULL) == KVSIFT_OK);
  void *arena = aligned_alloc(KVSIFT_ARENA_ALIGNMENT, (size_t)bytes);
  must(arena != NULL && kvsift_policy_create(&config, arena, bytes, &policy) == KVSIFT_OK);
  drive(policy);
  free(arena);
}

static void load(const uint8_t *bytes, size_t size) {
  uint64_t arena_bytes = 0, alignment = 0;
  kvsift_predictor *predictor = NULL;
  kvsift_error error = {0};
  must(kvsift_predictor_arena_size(&arena_bytes, &alignment) == KVSIFT_OK);
  void *arena = aligned_alloc((size_t)alignment, (size_t)arena_bytes);
  must(arena != NULL);
  const kvsift_status status = kvsift_predictor_load(bytes, size, arena, arena_bytes, &predictor, &error);
  must((status == KVSIFT_OK) == (predictor != NULL));
  must(status == KVSIFT_OK || error.message[0] != '\0');
  static const kvsift_type arithmetic[] = {KVSIFT_F32, KVSIFT_BF16, KVSIFT_I8};
  for (int i = 0; predictor != NULL && i < 3; ++i) choose_with(predictor, arithmetic[i]);
  free(arena);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size) {
  static uint8_t file[FILE_BYTES];
  const uint32_t version = 1, parameters = PARAMETERS;
  static const uint8_t nothing[1];
  load(size > 0 ? bytes : nothing, size);
  for (size_t i = 0; i < 4 * PARAMETERS; ++i) file[HEADER + i] = size > 0 ? bytes[i % size] : 0;
  const uint64_t sum = checksum(file + HEADER, 4 * PARAMETERS);
  memcpy(file, "KVSIFTPW", 8);
  memcpy(file + 8, &version, 4);
  memcpy(file + 12, &parameters, 4);
  memcpy(file + 16, &sum, 8);
  load(file, sizeof file);
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

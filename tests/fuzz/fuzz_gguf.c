/* The GGUF reader and what is built on it, on any bytes. With -DKVSIFT_REPLAY the program reads the
 * files it is given instead of making inputs up. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

static void load_model(const gguf_file *file) {
  static const char text[] = " The code of the \xc3\xa9 is 4821.";
  model m = {.gguf = *file};
  failure why;
  token_list list = {0};
  if (tokenizer_load(&m.tokens, file, &why)) {
    char piece[64];
    if (!tokenizer_encode(&m.tokens, text, sizeof text - 1, true, &list, &why)) abort();
    for (uint32_t i = 0; i < list.count; i++) {
      if (list.tokens[i] >= m.tokens.count) abort();
      tokenizer_decode(&m.tokens, list.tokens[i], i == 0, piece, sizeof piece);
    }
    m.vocabulary = m.tokens.count;
    if (model_read_shape(&m, &why) && model_read_rope(&m, &why)) model_read_weights(&m, &why);
  }
  token_list_release(&list);
  model_release(&m); /* its gguf is the caller's file */
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size) {
  gguf_file file;
  failure why = {""};
  void *copy = NULL;
  if (posix_memalign(&copy, 64, size > 0 ? size : 1) != 0) abort();
  if (size > 0) memcpy(copy, bytes, size);
  if (gguf_parse(&file, "fuzz.gguf", copy, size, &why)) {
    load_model(&file);
  } else if (why.text[0] == 0) {
    abort(); /* a refusal without a sentence */
  }
  free(copy);
  return 0;
}

#ifdef KVSIFT_REPLAY
static int replay(const char *path) {
  FILE *from = fopen(path, "rb");
  uint8_t *bytes = malloc(1u << 20);
  if (from == NULL || bytes == NULL) {
    fprintf(stderr, "%s: cannot be read\n", path);
    return 1;
  }
  size_t size = fread(bytes, 1, 1u << 20, from);
  fclose(from);
  LLVMFuzzerTestOneInput(bytes, size);
  free(bytes);
  return 0;
}

int main(int count, char **paths) {
  int failed = count < 2;
  for (int i = 1; i < count; i++) failed |= replay(paths[i]);
  printf("%d inputs replayed\n", count - 1);
  return failed;
}
#endif

/* The tokenizer: merges against a slow reading of the rule, bytes, spaces, and text back from
 * tokens. */
#include "../support/gguf_builder.h" /* before cmocka.h, which makes `fail` a macro */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "../support/random.h"
#include "tokenizer.h"

#define SPACE "\xe2\x96\x81"
#define BYTES_AT 3u

static const char *const pieces[] = {SPACE,
                                     "a",
                                     "b",
                                     "c",
                                     "n",
                                     "ab",
                                     "an",
                                     "ana",
                                     "ban",
                                     "na",
                                     SPACE "a",
                                     SPACE "ban",
                                     "abc",
                                     SPACE SPACE,
                                     "\xc3\xa9",
                                     ("\xc3\xa9" "a"),
                                     "1",
                                     "2"};
static const float scores[] = {-9, -10,   -11, -12, -13, -1,  -2, -3,  -2.5f,
                               -4, -1.5f, -5,  -6,  -7,  -14, -2, -15, -16};
enum { PIECES = sizeof pieces / sizeof *pieces };

typedef struct fixture {
  gguf_builder builder;
  gguf_file file;
  void *copy;
  tokenizer tokens;
} fixture;

static void put_vocabulary(gguf_builder *b, const char *model) {
  uint32_t count = BYTES_AT + 256 + PIECES;
  put_key_string(b, "tokenizer.ggml.model", model);
  put_key_array(b, "tokenizer.ggml.tokens", GGUF_STRING, count);
  put_string(b, "<unk>"), put_string(b, "<s>"), put_string(b, "</s>");
  for (uint32_t i = 0; i < 256; i++) {
    char name[16];
    snprintf(name, sizeof name, "<0x%02X>", i);
    put_string(b, name);
  }
  for (uint32_t i = 0; i < PIECES; i++) put_string(b, pieces[i]);
  put_key_array(b, "tokenizer.ggml.scores", GGUF_FLOAT32, count);
  for (uint32_t i = 0; i < count; i++) {
    float score = i < BYTES_AT + 256 ? 0 : scores[i - BYTES_AT - 256];
    put(b, &score, 4);
  }
  put_key_array(b, "tokenizer.ggml.token_type", GGUF_I32, count);
  for (uint32_t i = 0; i < count; i++) {
    put_u32(b, i == 0               ? PIECE_UNKNOWN
               : i < BYTES_AT       ? PIECE_CONTROL
               : i < BYTES_AT + 256 ? PIECE_BYTE
                                    : PIECE_NORMAL);
  }
  put_key_u32(b, "tokenizer.ggml.bos_token_id", 1);
  put_key_u32(b, "tokenizer.ggml.eos_token_id", 2);
}

static int set_up(void **state) {
  static fixture f;
  failure why = {""};
  memset(&f, 0, sizeof f);
  put_header(&f.builder, 3);
  put_vocabulary(&f.builder, "llama");
  finish_header(&f.builder);
  *state = &f;
  return parse_copy(f.builder.bytes, f.builder.size, &f.file, &f.copy, &why) &&
                 tokenizer_load(&f.tokens, &f.file, &why)
             ? 0
             : -1;
}

static int tear_down(void **state) {
  fixture *f = *state;
  tokenizer_release(&f->tokens);
  gguf_release(&f->file);
  free(f->copy);
  drop(&f->builder);
  return 0;
}

/* Best score first, leftmost first among equals, by looking at every pair every time. */
static uint32_t slow_encode(const tokenizer *t, const char *text, uint32_t length, uint32_t *out) {
  uint32_t begin[512], count = 0;
  for (uint32_t i = 0; i < length; i++) {
    if (((uint8_t)text[i] & 0xc0) != 0x80) begin[count++] = i;
  }
  begin[count] = length;
  for (;;) {
    uint32_t best = count, best_token = 0;
    for (uint32_t i = 0; i + 1 < count; i++) {
      uint32_t token = tokenizer_find(t, text + begin[i], begin[i + 2] - begin[i]);
      if (token == NO_TOKEN || (best < count && t->scores[token] <= t->scores[best_token]))
        continue;
      best = i, best_token = token;
    }
    if (best == count) break;
    for (uint32_t i = best + 1; i < count; i++) begin[i] = begin[i + 1];
    count--;
  }
  uint32_t written = 0;
  for (uint32_t i = 0; i < count; i++) {
    uint32_t token = tokenizer_find(t, text + begin[i], begin[i + 1] - begin[i]);
    if (token != NO_TOKEN) out[written++] = token;
    for (uint32_t k = begin[i]; token == NO_TOKEN && k < begin[i + 1]; k++) {
      out[written++] = BYTES_AT + (uint8_t)text[k];
    }
  }
  return written;
}

static void expect_tokens(const fixture *f, const char *text, const char *const *expected,
                          uint32_t count) {
  token_list list = {0};
  failure why = {""};
  assert_true(tokenizer_encode(&f->tokens, text, strlen(text), true, &list, &why));
  assert_int_equal(list.count, count + 1);
  assert_int_equal(list.tokens[0], 1);
  for (uint32_t i = 0; i < count; i++) {
    if (!gguf_equals(f->tokens.pieces[list.tokens[i + 1]], expected[i])) {
      fail_msg("token %u of \"%s\" is %u, expected %s", i, text, list.tokens[i + 1], expected[i]);
    }
  }
  token_list_release(&list);
}

static void merges_by_score(void **state) {
  expect_tokens(*state, "ac", (const char *[]){SPACE "a", "c"}, 2);
  expect_tokens(*state, "abc", (const char *[]){SPACE, "abc"}, 2);
  expect_tokens(*state, "babc", (const char *[]){SPACE, "b", "abc"}, 3);
  expect_tokens(*state, "", NULL, 0);
  expect_tokens(*state,
                "1\n\xc3\xa9"
                "a\xf0\x9f\x98\x80",
                (const char *[]){SPACE, "1", "<0x0A>",
                                 "\xc3\xa9"
                                 "a",
                                 "<0xF0>", "<0x9F>", "<0x98>", "<0x80>"},
                8);
}

static void merges_like_the_slow_reading(void **state) {
  const fixture *f = *state;
  static const char *const parts[] = {"a", "b", "c", "n", SPACE, "\xc3\xa9", "1", "x"};
  test_random random = {7};
  for (uint32_t round = 0; round < 2000; round++) {
    char text[256] = "";
    uint32_t expected[512];
    token_list list = {0};
    failure why = {""};
    for (uint32_t i = random_below(&random, 40); i > 0; i--) {
      strcat(text, parts[random_below(&random, sizeof parts / sizeof *parts)]);
    }
    uint32_t count = slow_encode(&f->tokens, text, (uint32_t)strlen(text), expected);
    assert_true(tokenizer_encode(&f->tokens, text, strlen(text), false, &list, &why));
    assert_int_equal(list.count, count);
    if (count > 0) assert_memory_equal(list.tokens, expected, count * sizeof *expected);
    token_list_release(&list);
  }
}

static void text_comes_back(void **state) {
  const fixture *f = *state;
  test_random random = {11};
  for (uint32_t round = 0; round < 500; round++) {
    char text[64], back[256];
    uint32_t length = random_below(&random, sizeof text), used = 0;
    token_list list = {0};
    failure why = {""};
    for (uint32_t i = 0; i < length; i++) text[i] = (char)random_bits(&random);
    for (uint32_t i = 0; i < length; i += 3) text[i] = ' ';
    assert_true(tokenizer_encode(&f->tokens, text, length, true, &list, &why));
    for (uint32_t i = 1; i < list.count; i++) {
      used += tokenizer_decode(&f->tokens, list.tokens[i], i == 1, back + used,
                               (uint32_t)sizeof back - used);
    }
    assert_int_equal(used, length);
    assert_memory_equal(back, text, length);
    token_list_release(&list);
  }
}

static void control_pieces_have_no_text(void **state) {
  const fixture *f = *state;
  char text[8];
  assert_int_equal(tokenizer_decode(&f->tokens, 1, false, text, sizeof text), 0);
  assert_int_equal(tokenizer_decode(&f->tokens, 2, false, text, sizeof text), 0);
  assert_int_equal(tokenizer_decode(&f->tokens, f->tokens.count, false, text, sizeof text), 0);
  assert_int_equal(tokenizer_decode(&f->tokens, BYTES_AT + 'x', false, text, sizeof text), 1);
  assert_int_equal(text[0], 'x');
  assert_int_equal(tokenizer_find(&f->tokens, "<s>", 3), NO_TOKEN);
}

static void expect_refusal(gguf_builder *b, const char *words) {
  gguf_file file;
  tokenizer tokens;
  failure why = {""};
  void *copy;
  finish_header(b);
  assert_true(parse_copy(b->bytes, b->size, &file, &copy, &why));
  bool loaded = tokenizer_load(&tokens, &file, &why);
  if (loaded || strstr(why.text, words) == NULL)
    fail_msg("\"%s\" is not in \"%s\"", words, why.text);
  gguf_release(&file);
  free(copy);
  drop(b);
}

static void other_vocabularies_are_refused(void **state) {
  (void)state;
  gguf_builder b = {0};
  put_header(&b, 3);
  put_vocabulary(&b, "gpt2");
  expect_refusal(&b, "byte-level BPE (\"gpt2\") cannot");
  put_header(&b, 3);
  expect_refusal(&b, "tokenizer.ggml.model is missing");
  put_header(&b, 3);
  put_key_string(&b, "tokenizer.ggml.model", "llama");
  put_key_array(&b, "tokenizer.ggml.tokens", GGUF_STRING, 1);
  put_string(&b, "a");
  expect_refusal(&b, "key tokenizer.ggml.scores is missing");
  put_header(&b, 3);
  put_key_u32(&b, "tokenizer.ggml.eos_token_id", 5000000);
  put_vocabulary(&b, "llama");
  expect_refusal(&b, "tokenizer.ggml.eos_token_id is 5000000; the vocabulary has 277 pieces");
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(merges_by_score, set_up, tear_down),
      cmocka_unit_test_setup_teardown(merges_like_the_slow_reading, set_up, tear_down),
      cmocka_unit_test_setup_teardown(text_comes_back, set_up, tear_down),
      cmocka_unit_test_setup_teardown(control_pieces_have_no_text, set_up, tear_down),
      cmocka_unit_test(other_vocabularies_are_refused)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}

/* The GGUF reader: what is right is read, what is cut short or hostile gets a sentence. */
#include "../support/gguf_builder.h" /* before cmocka.h, which makes `fail` a macro */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static void build(gguf_builder *b, uint32_t version) {
  static const float data[24] = {1, 2, 3};
  memset(b, 0, sizeof *b);
  put_header(b, version);
  put_key_string(b, "general.architecture", "llama");
  put_key_u32(b, "llama.block_count", 7);
  put_key_float(b, "llama.eps", 0.5f);
  put_key_bool(b, "flag", 1);
  put_key(b, "wide", GGUF_I64);
  put_u64(b, (uint64_t)-3);
  put_key(b, "huge", GGUF_U64);
  put_u64(b, UINT64_MAX);
  put_key_array(b, "words", GGUF_STRING, 3);
  put_string(b, "one");
  put_string(b, "");
  put_string(b, "three");
  put_key_array(b, "numbers", GGUF_FLOAT32, 2);
  put(b, data, 8);
  put_tensor(b, "a.weight", GGML_F32, 2, (const uint64_t[]){4, 2});
  put_tensor(b, "b.weight", GGML_Q8_0, 1, (const uint64_t[]){32});
  put_tensor(b, "c.weight", GGML_F16, 1, (const uint64_t[]){8});
  finish_header(b);
  put(b, data, 32);
  put(b, data, 64);
  put(b, data, 16);
}

static void expect_failure(const gguf_builder *b, const char *words) {
  gguf_file file;
  failure why = {""};
  void *copy;
  bool done = parse_copy(b->bytes, b->size, &file, &copy, &why);
  if (done || strstr(why.text, words) == NULL) {
    fail_msg("expected a failure with \"%s\", got \"%s\"", words, why.text);
  }
  assert_non_null(strstr(why.text, "test.gguf"));
  free(copy);
}

static void check_contents(const gguf_file *file) {
  failure why = {""};
  uint32_t number = 0, absent = 9;
  float epsilon = 0;
  bool flag = false;
  gguf_string text;
  assert_true(gguf_read_u32(file, "llama.block_count", &number, &why));
  assert_int_equal(number, 7);
  assert_true(gguf_read_u32(file, "absent", &absent, &why));
  assert_int_equal(absent, 9);
  assert_true(gguf_read_float(file, "llama.eps", &epsilon, &why));
  assert_true(epsilon == 0.5f);
  assert_true(gguf_read_bool(file, "flag", &flag, &why) && flag);
  assert_true(gguf_read_string(file, "general.architecture", &text, &why));
  assert_true(gguf_equals(text, "llama"));
  const gguf_value *words = gguf_find(file, "words");
  const uint8_t *cursor = words->data;
  assert_int_equal(words->count, 3);
  assert_true(gguf_equals(gguf_next_string(&cursor), "one"));
  assert_true(gguf_equals(gguf_next_string(&cursor), ""));
  assert_true(gguf_equals(gguf_next_string(&cursor), "three"));
  const gguf_tensor *tensor = gguf_find_tensor(file, "a.weight");
  assert_int_equal(tensor->bytes, 32);
  assert_true(((const float *)(const void *)tensor->data)[2] == 3);
  assert_int_equal(gguf_find_tensor(file, "b.weight")->bytes, 34);
  assert_null(gguf_find_tensor(file, "d.weight"));
}

static void reads_both_versions(void **state) {
  (void)state;
  for (uint32_t version = 2; version <= 3; version++) {
    gguf_builder b;
    gguf_file file;
    failure why = {""};
    void *copy;
    build(&b, version);
    if (!parse_copy(b.bytes, b.size, &file, &copy, &why)) fail_msg("%s", why.text);
    check_contents(&file);
    gguf_release(&file);
    free(copy);
    drop(&b);
  }
}

static void wrong_kinds_are_named(void **state) {
  (void)state;
  gguf_builder b;
  gguf_file file;
  failure why = {""};
  void *copy;
  uint32_t number = 5;
  bool flag;
  build(&b, 3);
  assert_true(parse_copy(b.bytes, b.size, &file, &copy, &why));
  assert_false(gguf_read_u32(&file, "llama.eps", &number, &why));
  assert_non_null(strstr(why.text, "key llama.eps is float32; expected one integer"));
  assert_false(gguf_read_u32(&file, "wide", &number, &why));
  assert_non_null(strstr(why.text, "key wide is -3"));
  assert_false(gguf_read_u32(&file, "huge", &number, &why));
  assert_non_null(strstr(why.text, "key huge is 18446744073709551615; expected 0 to 4294967295"));
  assert_false(gguf_read_u32(&file, "numbers", &number, &why));
  assert_non_null(strstr(why.text, "an array of float32"));
  assert_false(gguf_read_bool(&file, "words", &flag, &why));
  assert_int_equal(number, 5);
  gguf_release(&file);
  free(copy);
  drop(&b);
}

static void every_cut_fails(void **state) {
  (void)state;
  gguf_builder b;
  build(&b, 3);
  for (uint64_t size = 0; size < b.size; size++) {
    gguf_file file;
    failure why = {""};
    void *copy;
    if (parse_copy(b.bytes, size, &file, &copy, &why)) fail_msg("%u bytes passed", (unsigned)size);
    assert_true(why.text[0] != 0);
    free(copy);
  }
  drop(&b);
}

static void touch_everything(const gguf_file *file) {
  volatile uint8_t sink = 0;
  for (uint64_t i = 0; i < file->value_count; i++) {
    const gguf_value *v = &file->values[i];
    const uint8_t *cursor = v->data;
    for (uint64_t k = 0; v->type == GGUF_STRING && k < v->count; k++) {
      gguf_string text = gguf_next_string(&cursor);
      if (text.length > 0) sink ^= (uint8_t)text.bytes[text.length - 1];
    }
  }
  for (uint64_t i = 0; i < file->tensor_count; i++) {
    const gguf_tensor *t = &file->tensors[i];
    if (t->bytes > 0) sink ^= t->data[0] ^ t->data[t->bytes - 1];
  }
  (void)sink;
}

static void every_changed_byte_is_survived(void **state) {
  (void)state;
  static const uint8_t masks[] = {0x01, 0x80, 0xff};
  gguf_builder b;
  build(&b, 3);
  for (uint64_t at = 0; at < b.size; at++) {
    for (uint32_t m = 0; m < sizeof masks; m++) {
      gguf_file file;
      failure why = {""};
      void *copy;
      b.bytes[at] ^= masks[m];
      if (parse_copy(b.bytes, b.size, &file, &copy, &why)) {
        touch_everything(&file);
        gguf_release(&file);
      } else {
        assert_true(why.text[0] != 0);
      }
      b.bytes[at] ^= masks[m];
      free(copy);
    }
  }
  drop(&b);
}

static void headers_are_checked(void **state) {
  (void)state;
  gguf_builder b;
  uint64_t huge = UINT64_MAX;
  build(&b, 3);
  memcpy(b.bytes + b.key_count_at, &huge, 8);
  expect_failure(&b, "claims 18446744073709551615 keys");
  drop(&b);
  build(&b, 0x03000000u);
  expect_failure(&b, "a big-endian file");
  drop(&b);
  build(&b, 1);
  expect_failure(&b, "GGUF version 1; versions 2 and 3");
  b.bytes[0] = 'X';
  expect_failure(&b, "not a GGUF file: it begins with bytes 58 47 55 46");
  drop(&b);
}

static void values_are_checked(void **state) {
  (void)state;
  gguf_builder b = {0};
  put_header(&b, 3);
  put_key_array(&b, "nested", GGUF_ARRAY, 1);
  finish_header(&b);
  expect_failure(&b, "key nested at byte");
  drop(&b);
  put_header(&b, 3);
  put_key_array(&b, "many", GGUF_U64, UINT64_MAX / 8 + 2);
  finish_header(&b);
  expect_failure(&b, "the value of key many claims");
  drop(&b);
  put_header(&b, 3);
  put_key_array(&b, "words", GGUF_STRING, UINT64_MAX);
  finish_header(&b);
  expect_failure(&b, "cut short: the value of key words");
  drop(&b);
  put_header(&b, 3);
  put_key_u32(&b, "general.alignment", 12);
  finish_header(&b);
  expect_failure(&b, "general.alignment is 12");
  drop(&b);
}

static void expect_bad_tensor(uint32_t dimensions, const uint64_t *shape, uint64_t offset,
                              const char *words) {
  gguf_builder b = {0};
  put_header(&b, 3);
  b.data_bytes = offset;
  put_tensor(&b, "t", GGML_F32, dimensions, shape);
  finish_header(&b);
  for (uint32_t i = 0; i < 64; i++) put(&b, "", 1);
  expect_failure(&b, words);
  drop(&b);
}

static void tensors_are_checked(void **state) {
  (void)state;
  expect_bad_tensor(0, (const uint64_t[]){1}, 0, "tensor t has 0 dimensions");
  expect_bad_tensor(2, (const uint64_t[]){4, 0}, 0, "tensor t has 0 as dimension 1");
  expect_bad_tensor(3, (const uint64_t[]){4, 1u << 31, 1u << 31}, 0, "fewer than 2^32 rows");
  expect_bad_tensor(1, (const uint64_t[]){1ull << 32}, 0,
                    "tensor t has 4294967296 as dimension 0; expected 1 or more, and fewer than 2^32 elements a row");
  expect_bad_tensor(1, (const uint64_t[]){17}, 0, "cut short: tensor t needs 1 rows of 68 bytes");
  expect_bad_tensor(1, (const uint64_t[]){4}, 8,
                    "tensor t has offset 8; expected a multiple of 32");
  expect_bad_tensor(1, (const uint64_t[]){4}, UINT64_MAX - 31, "tensor t has offset");
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(reads_both_versions), cmocka_unit_test(wrong_kinds_are_named),
      cmocka_unit_test(every_cut_fails),     cmocka_unit_test(every_changed_byte_is_survived),
      cmocka_unit_test(headers_are_checked), cmocka_unit_test(values_are_checked),
      cmocka_unit_test(tensors_are_checked)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}

/* The evaluation's tasks: what is asked was planted, where it should be, and fits the context. */
#include "../support/gguf_builder.h" /* before cmocka.h, which makes `fail` a macro */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <unistd.h>

#include <cmocka.h>

#include "tasks.h"

#define SPACE "\xe2\x96\x81"

typedef struct fixture {
  gguf_builder builder;
  gguf_file file;
  void *copy;
  tokenizer tokens;
  sentences text;
  char path[64];
} fixture;

/* Single bytes, a space that begins a word, and nothing else. */
static void put_vocabulary(gguf_builder *b) {
  uint32_t count = 3 + 256 + 2;
  put_key_string(b, "tokenizer.ggml.model", "llama");
  put_key_array(b, "tokenizer.ggml.tokens", GGUF_STRING, count);
  put_string(b, "<unk>"), put_string(b, "<s>"), put_string(b, "</s>");
  for (uint32_t i = 0; i < 256; i++) {
    char name[16];
    snprintf(name, sizeof name, "<0x%02X>", i);
    put_string(b, name);
  }
  put_string(b, SPACE);
  put_string(b, ".");
  put_key_array(b, "tokenizer.ggml.scores", GGUF_FLOAT32, count);
  for (uint32_t i = 0; i < count; i++) put_u32(b, 0);
  put_key_u32(b, "tokenizer.ggml.bos_token_id", 1);
}

static int set_up(void **state) {
  static fixture f;
  failure why = {""};
  memset(&f, 0, sizeof f);
  put_header(&f.builder, 3);
  put_vocabulary(&f.builder);
  finish_header(&f.builder);
  strcpy(f.path, "tasks_text_XXXXXX");
  int descriptor = mkstemp(f.path);
  FILE *to = fdopen(descriptor, "w");
  for (uint32_t i = 0; i < 400; i++) fprintf(to, "Sentence number %u goes on. ", i);
  fclose(to);
  *state = &f;
  return parse_copy(f.builder.bytes, f.builder.size, &f.file, &f.copy, &why) &&
                 tokenizer_load(&f.tokens, &f.file, &why) &&
                 sentences_read(&f.text, &f.tokens, f.path, &why)
             ? 0
             : -1;
}

static int tear_down(void **state) {
  fixture *f = *state;
  sentences_release(&f->text);
  tokenizer_release(&f->tokens);
  gguf_release(&f->file);
  free(f->copy);
  drop(&f->builder);
  unlink(f->path);
  return 0;
}

static void to_text(const tokenizer *with, const token_list *list, char *out, uint32_t room) {
  uint32_t used = 0;
  for (uint32_t i = 0; i < list->count && used + 8 < room; i++) {
    used += tokenizer_decode(with, list->tokens[i], false, out + used, room - used - 1);
  }
  out[used] = 0;
}

/* "Question: the code of the red fox is" of `question` as the statement that answers it. */
static void statement_of(const char *question, const char *expected, char out[256]) {
  const char *subject = strstr(question, "Question: the ");
  assert_non_null(subject);
  snprintf(out, 256, "The %s %s.", subject + strlen("Question: the "), expected);
}

static void what_is_asked_was_planted(void **state) {
  const fixture *f = *state;
  for (uint32_t task = 0; task < TASK_COUNT; task++) {
    for (uint64_t seed = 1; seed <= 20; seed++) {
      static char text[8192], question[256], statement[256];
      task_sample s;
      failure why = {""};
      if (!task_make(&s, &f->text, &f->tokens, task, 2048, -1, seed, &why))
        fail_msg("%s", why.text);
      to_text(&f->tokens, &s.script.prompt, text, sizeof text);
      assert_int_equal(s.script.turn_count, task_turns(task));
      assert_true(script_longest(&s.script) <= 2048 + 24 * s.script.turn_count);
      for (uint32_t i = 0; i < s.script.turn_count; i++) {
        const char *asked = strstr(text, "Question:");
        to_text(&f->tokens, &s.script.turns[i].tokens, question, sizeof question);
        const char *expected = s.expected[i];
        if (task == TASK_CHAIN) expected = "the code of the";
        statement_of(i == 0 ? asked : question, expected, statement);
        if (task == TASK_CHAIN) statement[strlen(statement) - 1] = 0;
        if (strstr(text, statement) == NULL) fail_msg("\"%s\" is not in the prompt", statement);
      }
      task_release(&s);
    }
  }
}

static void depth_places_the_needle(void **state) {
  const fixture *f = *state;
  for (uint32_t depth = 0; depth <= 4; depth++) {
    static char text[8192], statement[256];
    task_sample s;
    failure why = {""};
    assert_true(task_make(&s, &f->text, &f->tokens, TASK_NEEDLE, 4096, depth / 4.0, 3, &why));
    to_text(&f->tokens, &s.script.prompt, text, sizeof text);
    statement_of(strstr(text, "Question:"), s.expected[0], statement);
    double place = (double)(strstr(text, statement) - text) / (double)strlen(text);
    assert_true(place > depth / 4.0 - 0.12 && place < depth / 4.0 + 0.12);
    task_release(&s);
  }
}

static void seeds_decide(void **state) {
  const fixture *f = *state;
  task_sample a, b, c;
  failure why = {""};
  assert_true(task_make(&a, &f->text, &f->tokens, TASK_KEYS, 2048, -1, 5, &why));
  assert_true(task_make(&b, &f->text, &f->tokens, TASK_KEYS, 2048, -1, 5, &why));
  assert_true(task_make(&c, &f->text, &f->tokens, TASK_KEYS, 2048, -1, 6, &why));
  assert_int_equal(a.script.prompt.count, b.script.prompt.count);
  assert_memory_equal(a.script.prompt.tokens, b.script.prompt.tokens, 4 * a.script.prompt.count);
  assert_true(strcmp(a.expected[0], c.expected[0]) != 0 ||
              strcmp(a.expected[1], c.expected[1]) != 0);
  task_release(&a);
  task_release(&b);
  task_release(&c);
  assert_false(task_make(&a, &f->text, &f->tokens, TASK_KEYS, 128, -1, 5, &why));
  assert_non_null(strstr(why.text, "a context of 128 tokens is too short"));
}

static void answers_are_judged(void **state) {
  (void)state;
  assert_true(task_is_right(" 4821.", "4821"));
  assert_true(task_is_right("4821.", "4821"));
  assert_false(task_is_right(" 4821", "4821"));
  assert_false(task_is_right(" 48215.", "4821"));
  assert_false(task_is_right(" 482.", "4821"));
  assert_false(task_is_right("", "4821"));
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(what_is_asked_was_planted, set_up, tear_down),
      cmocka_unit_test_setup_teardown(depth_places_the_needle, set_up, tear_down),
      cmocka_unit_test_setup_teardown(seeds_decide, set_up, tear_down),
      cmocka_unit_test(answers_are_judged)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}

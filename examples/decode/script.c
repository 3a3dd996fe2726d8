#include "script.h"

#include <string.h>

#include "file.h"
#include "memory.h"
#include "prompt.h"

#define PLANTED_ANSWER_TOKENS 16u
#define FREE_ANSWER_TOKENS 128u

static bool add_text(const model *m, const char *text, bool at_start, token_list *to,
                     failure *why) {
  return tokenizer_encode(&m->tokens, text, strlen(text), at_start, to, why);
}

static char *join_passages(const char *first_question) {
  uint32_t passages;
  const char *const *passage = prompt_passages(&passages);
  uint64_t length = strlen(first_question) + 1;
  for (uint32_t i = 0; i < passages; i++) length += strlen(passage[i]);
  char *text = memory_take(length, 1);
  if (text == NULL) return NULL;
  char *end = text;
  for (uint32_t i = 0; i < passages; i++) end = stpcpy(end, passage[i]);
  stpcpy(end, first_question);
  return text;
}

static bool make_planted(script *out, const model *m, failure *why) {
  uint32_t questions;
  const planted_question *question = prompt_questions(&questions);
  char *text = join_passages(question[0].question);
  if (text == NULL) return fail(why, "no memory for the prompt");
  bool done = add_text(m, text, true, &out->prompt, why);
  memory_give(text);
  for (uint32_t i = 0; i < questions && i < MOST_TURNS && done; i++) {
    turn *t = &out->turns[out->turn_count++];
    t->expected = question[i].answer;
    done = i == 0 || add_text(m, question[i].question, false, &t->tokens, why);
  }
  out->stops_at_period = true;
  return done;
}

static bool make_from_file(script *out, const model *m, const char *path, failure *why) {
  mapped_file file;
  if (!file_map(&file, path, why)) return false;
  bool done = tokenizer_encode(&m->tokens, file.bytes, file.size, true, &out->prompt, why);
  file_unmap(&file);
  return done;
}

static bool make(script *out, const model *m, const options *from, failure *why) {
  if (from->prompt == NULL && from->file == NULL) {
    if (!make_planted(out, m, why)) return false;
  } else {
    out->turn_count = 1;
    if (from->file != NULL ? !make_from_file(out, m, from->file, why)
                           : !add_text(m, from->prompt, true, &out->prompt, why)) {
      return false;
    }
  }
  if (out->prompt.count == 0) return fail(why, "the prompt is empty");
  uint32_t usual = out->stops_at_period ? PLANTED_ANSWER_TOKENS : FREE_ANSWER_TOKENS;
  out->answer_tokens = from->tokens == UNSET ? usual : from->tokens;
  uint64_t longest = (uint64_t)script_longest(out);
  if (longest <= m->context) return true;
  return fail(why,
              "%s: prompt and answers need %llu tokens; the model was made for %u (a shorter"
              " prompt or --tokens helps)",
              m->gguf.name, (unsigned long long)longest, m->context);
}

bool script_make(script *out, const model *m, const options *from, failure *why) {
  memset(out, 0, sizeof *out);
  if (make(out, m, from, why)) return true;
  script_release(out);
  return false;
}

void script_release(script *out) {
  token_list_release(&out->prompt);
  for (uint32_t i = 0; i < out->turn_count; i++) token_list_release(&out->turns[i].tokens);
  memset(out, 0, sizeof *out);
}

uint32_t script_longest(const script *of) {
  uint64_t total = of->prompt.count;
  for (uint32_t i = 0; i < of->turn_count; i++) {
    total += (uint64_t)of->turns[i].tokens.count + of->answer_tokens;
  }
  return total < UINT32_MAX ? (uint32_t)total : UINT32_MAX;
}

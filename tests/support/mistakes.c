#include "mistakes.h"

#include <stdlib.h>
#include <string.h>

#include "cases.h"

/* The rest of the step and two more, on a copy. */
static uint64_t digest_of_next(const mistake_room *m) {
  session *copy = session_fork(m->s);
  copy->digest = 0;
  session_steps(copy, 3);
  const uint64_t digest = copy->digest;
  session_free(copy);
  return digest;
}

static void attend_layer(mistake_room *m) {
  must(m->p, kvsift_select_blocks(m->p, m->layer, &m->query, &m->selection));
  must(m->p, kvsift_attend(m->p, m->layer, &m->query, &m->cache, &m->selection, m->out, &m->observation));
}

void mistakes_begin(mistake_room *m, const kvsift_policy_config *config, toy_form form, mistake_stage stage) {
  memset(m, 0, sizeof *m);
  m->toy = toy_new(11, config, form);
  m->s = session_new(config, m->toy);
  m->p = m->s->policy;
  session_prompt(m->s, 60);
  session_steps(m->s, 4);
  m->layer = config->dense_layers;
  m->tokens = m->s->tokens + 1;
  m->query = session_query(m->s, m->layer, m->tokens, 1);
  m->keys = toy_view(m->toy, TOY_KEY, m->layer, m->s->tokens);
  m->values = toy_view(m->toy, TOY_VALUE, m->layer, m->s->tokens);
  m->cache = toy_cache(m->toy, m->layer, m->tokens);
  m->selection.struct_size = sizeof m->selection;
  m->observation = (kvsift_observation){.struct_size = sizeof m->observation, .block_stride = m->s->block_stride,
                                        .block_max = m->s->block_max, .block_mass = m->s->block_mass,
                                        .log_sum_exp = m->s->log_sum_exp, .tokens = m->tokens};
  m->out = calloc((size_t)config->max_tokens * config->query_heads * config->head_dim, sizeof(float));
  m->log_sum_exp = calloc(config->query_heads, sizeof(float));
  if (stage >= KEYS_SEEN) {
    for (uint32_t layer = 0; layer < config->layers; ++layer) session_keys(m->s, layer, 1);
    m->s->keys_given = true;
  }
  if (stage >= ATTENDED) attend_layer(m);
  m->stats.struct_size = sizeof m->stats;
  must(m->p, kvsift_get_stats(m->p, &m->stats));
  m->expected = digest_of_next(m);
}

void mistakes_end(mistake_room *m) {
  session_free(m->s);
  toy_free(m->toy);
  free(m->out);
  free(m->log_sum_exp);
}

static void check_words(const char *sentence, const char *words) {
  char copy[256];
  strncpy(copy, words, sizeof copy - 1);
  copy[sizeof copy - 1] = '\0';
  for (char *word = copy, *end; word != NULL; word = end) {
    end = strchr(word, '|');
    if (end != NULL) *end++ = '\0';
    expect(strstr(sentence, word) != NULL, "no \"%s\" in: %s", word, sentence);
  }
}

void mistakes_check(mistake_room *m, kvsift_status given, kvsift_status status, const char *words) {
  const char *sentence = kvsift_last_error(m->p);
  expect(given == status, "status %d (%s), not %d: %s", given, kvsift_status_string(given), status, sentence);
  expect(sentence[0] != '\0', "no sentence");
  check_words(sentence, words);
  kvsift_stats stats = {.struct_size = sizeof stats};
  must(m->p, kvsift_get_stats(m->p, &stats));
  expect(memcmp(&stats, &m->stats, sizeof stats) == 0, "the call was counted");
  expect(digest_of_next(m) == m->expected, "the policy goes on otherwise than before the call");
}

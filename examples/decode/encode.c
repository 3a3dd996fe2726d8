/* Text to tokens: the pair of neighbours whose joined piece scores best is merged, the leftmost
 * first among equals, until no pair makes a piece. */
#include <string.h>

#include "memory.h"
#include "tokenizer.h"

#define NONE UINT32_MAX
#define MOST_TEXT_BYTES (1u << 28)

typedef struct symbol {
  uint32_t begin, length; /* 0 once merged into its left neighbour */
  uint32_t left, right;   /* symbols; NONE at the ends */
} symbol;

typedef struct merge {
  float score;
  uint32_t left, right;
  uint32_t length; /* of the joined piece: tells a merge that is out of date */
} merge;

typedef struct work {
  const tokenizer *with;
  const char *text;
  symbol *symbols;
  uint32_t symbol_count;
  merge *heap;
  uint32_t heap_count;
} work;

static bool before(merge a, merge b) {
  return a.score > b.score || (a.score == b.score && a.left < b.left);
}

static void heap_push(work *w, merge item) {
  uint32_t at = w->heap_count++;
  for (; at > 0 && before(item, w->heap[(at - 1) / 2]); at = (at - 1) / 2) {
    w->heap[at] = w->heap[(at - 1) / 2];
  }
  w->heap[at] = item;
}

static merge heap_pop(work *w) {
  merge best = w->heap[0], last = w->heap[--w->heap_count];
  uint32_t at = 0;
  for (uint32_t child; (child = 2 * at + 1) < w->heap_count; at = child) {
    if (child + 1 < w->heap_count && before(w->heap[child + 1], w->heap[child])) child++;
    if (!before(w->heap[child], last)) break;
    w->heap[at] = w->heap[child];
  }
  w->heap[at] = last;
  return best;
}

static void consider(work *w, uint32_t left, uint32_t right) {
  if (left == NONE || right == NONE) return;
  uint32_t length = w->symbols[left].length + w->symbols[right].length;
  uint32_t token = tokenizer_find(w->with, w->text + w->symbols[left].begin, length);
  if (token == NO_TOKEN) return;
  heap_push(w, (merge){w->with->scores[token], left, right, length});
}

/* One UTF-8 character, or the bytes that begin like one: a space after a broken character stays a
 * space. */
static uint32_t character_bytes(const char *text, uint32_t left) {
  uint8_t first = (uint8_t)text[0];
  uint32_t expected = first < 0xc0 ? 1 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4, bytes = 1;
  while (bytes < expected && bytes < left && ((uint8_t)text[bytes] & 0xc0) == 0x80) bytes++;
  return bytes;
}

static void split_characters(work *w, uint32_t length) {
  for (uint32_t begin = 0; begin < length;) {
    uint32_t bytes = character_bytes(w->text + begin, length - begin);
    uint32_t i = w->symbol_count++;
    w->symbols[i] = (symbol){begin, bytes, i == 0 ? NONE : i - 1, i + 1};
    begin += bytes;
  }
  if (w->symbol_count > 0) w->symbols[w->symbol_count - 1].right = NONE;
}

static void merge_symbols(work *w) {
  for (uint32_t i = 1; i < w->symbol_count; i++) consider(w, i - 1, i);
  while (w->heap_count > 0) {
    merge best = heap_pop(w);
    symbol *left = &w->symbols[best.left], *right = &w->symbols[best.right];
    if (left->length == 0 || right->length == 0 || left->length + right->length != best.length) {
      continue;
    }
    left->length = best.length;
    left->right = right->right;
    right->length = 0;
    if (left->right != NONE) w->symbols[left->right].left = best.left;
    consider(w, left->left, best.left);
    consider(w, best.left, left->right);
  }
}

static bool push_symbol(const work *w, symbol s, token_list *out, failure *why) {
  const tokenizer *with = w->with;
  uint32_t token = tokenizer_find(with, w->text + s.begin, s.length);
  if (token != NO_TOKEN) return token_list_push(out, token, why);
  for (uint32_t i = 0; i < s.length; i++) {
    token = with->byte_tokens[(uint8_t)w->text[s.begin + i]];
    if (token == NO_TOKEN) token = with->unknown;
    if (token != NO_TOKEN && !token_list_push(out, token, why)) return false;
  }
  return true;
}

static bool encode_escaped(work *w, uint32_t length, token_list *out, failure *why) {
  /* Each merge takes two entries out of play and adds at most two. */
  w->symbols = memory_take(length, sizeof *w->symbols);
  w->heap = memory_take(3 * (uint64_t)length, sizeof *w->heap);
  bool done = w->symbols != NULL && w->heap != NULL;
  if (!done) fail(why, "no memory to split %u bytes of text into tokens", length);
  if (done && length > 0) {
    split_characters(w, length);
    merge_symbols(w);
    for (uint32_t i = 0; i != NONE && done; i = w->symbols[i].right) {
      done = push_symbol(w, w->symbols[i], out, why);
    }
  }
  memory_give(w->symbols);
  memory_give(w->heap);
  return done;
}

bool tokenizer_encode(const tokenizer *with, const char *text, uint64_t length, bool at_start,
                      token_list *out, failure *why) {
  if (length > MOST_TEXT_BYTES) {
    return fail(why, "the text has %llu bytes; expected at most %u", (unsigned long long)length,
                MOST_TEXT_BYTES);
  }
  if (at_start && with->add_beginning && !token_list_push(out, with->beginning, why)) return false;
  char *escaped = memory_take(3 * (length + 1), 1);
  if (escaped == NULL)
    return fail(why, "no memory for %llu bytes of text", (unsigned long long)length);
  uint32_t bytes = 0;
  bool prefix = at_start && with->add_space && length > 0;
  for (uint64_t i = 0; i < length + prefix; i++) {
    char c = prefix ? (i == 0 ? ' ' : text[i - 1]) : text[i];
    if (c != ' ') {
      escaped[bytes++] = c;
      continue;
    }
    memcpy(escaped + bytes, "\xe2\x96\x81", 3);
    bytes += 3;
  }
  work w = {.with = with, .text = escaped};
  bool done = encode_escaped(&w, bytes, out, why);
  memory_give(escaped);
  return done;
}

bool token_list_push(token_list *list, uint32_t token, failure *why) {
  if (list->count == list->capacity) {
    uint32_t capacity = list->capacity < 128 ? 256 : list->capacity * 2;
    uint32_t *tokens = memory_take(capacity, sizeof *tokens);
    if (tokens == NULL) return fail(why, "no memory for %u tokens", capacity);
    if (list->count > 0) memcpy(tokens, list->tokens, list->count * sizeof *tokens);
    memory_give(list->tokens);
    list->tokens = tokens;
    list->capacity = capacity;
  }
  list->tokens[list->count++] = token;
  return true;
}

void token_list_release(token_list *list) {
  memory_give(list->tokens);
  memset(list, 0, sizeof *list);
}

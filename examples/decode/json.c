#include "json.h"

#include <inttypes.h>
#include <math.h>

/* Bytes of the UTF-8 character at `c`; 0 where there is none. */
static uint32_t character(const unsigned char *c) {
  uint32_t bytes = *c < 0x80 ? 1 : *c >= 0xc2 && *c < 0xe0 ? 2 : *c >= 0xe0 && *c < 0xf0 ? 3 : 4;
  if (*c >= 0xf5 || (*c >= 0x80 && *c < 0xc2)) return 0;
  if ((*c == 0xe0 && c[1] < 0xa0) || (*c == 0xed && c[1] > 0x9f)) return 0; /* too long, a surrogate */
  if ((*c == 0xf0 && c[1] < 0x90) || (*c == 0xf4 && c[1] > 0x8f)) return 0; /* too long, too great */
  for (uint32_t i = 1; i < bytes; i++) {
    if ((c[i] & 0xc0) != 0x80) return 0;
  }
  return bytes;
}

/* Models may end an answer within a character: stray bytes are written as the replacement
 * character. */
static void write_string(json *j, const char *text) {
  fputc('"', j->to);
  for (const unsigned char *c = (const unsigned char *)text; *c != 0;) {
    uint32_t bytes = character(c);
    if (bytes == 0) {
      fputs("\\ufffd", j->to);
    } else if (*c == '"' || *c == '\\') {
      fprintf(j->to, "\\%c", *c);
    } else if (*c < 0x20 || *c == 0x7f) {
      fprintf(j->to, "\\u%04x", *c);
    } else {
      fwrite(c, 1, bytes, j->to);
    }
    c += bytes > 0 ? bytes : 1;
  }
  fputc('"', j->to);
}

static void begin(json *j, const char *key) {
  if (j->started) fputc(',', j->to);
  if (j->depth > 0) fprintf(j->to, "\n%*s", (int)(2 * j->depth), "");
  if (key != NULL) {
    write_string(j, key);
    fputs(": ", j->to);
  }
  j->started = 1;
}

void json_open(json *j, const char *key, char bracket) {
  begin(j, key);
  fputc(bracket, j->to);
  j->depth++;
  j->started = 0;
}

void json_close(json *j, char bracket) {
  j->depth--;
  if (j->started) fprintf(j->to, "\n%*s", (int)(2 * j->depth), "");
  fputc(bracket, j->to);
  if (j->depth == 0) fputc('\n', j->to);
  j->started = 1;
}

void json_text(json *j, const char *key, const char *text) {
  begin(j, key);
  write_string(j, text);
}

void json_number(json *j, const char *key, double number) {
  begin(j, key);
  if (isfinite(number)) {
    fprintf(j->to, "%.9g", number);
  } else {
    fputs("null", j->to);
  }
}

void json_whole(json *j, const char *key, uint64_t number) {
  begin(j, key);
  fprintf(j->to, "%" PRIu64, number);
}

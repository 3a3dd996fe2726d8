/* Writing JSON, one call a value: commas, indentation and escapes are taken care of. */
#ifndef DECODE_JSON_H
#define DECODE_JSON_H

#include <stdint.h>
#include <stdio.h>

typedef struct json {
  FILE *to;
  uint32_t depth;
  int started; /* the innermost array or object has a value */
} json;

/* `key` is null within arrays. */
void json_open(json *j, const char *key, char bracket); /* '{' or '[' */
void json_close(json *j, char bracket);                 /* '}' or ']' */
void json_text(json *j, const char *key, const char *text);
void json_number(json *j, const char *key, double number); /* null where not finite */
void json_whole(json *j, const char *key, uint64_t number);

#endif

#include "count.h"

#include <errno.h>
#include <stdlib.h>

bool read_count(const char *option, const char *text, uint64_t most, uint64_t *out, failure *why) {
  char *end;
  errno = 0;
  *out = strtoull(text, &end, 10);
  bool whole = text[0] >= '0' && text[0] <= '9' && *end == 0 && errno == 0;
  if (whole && *out <= most) return true;
  return fail(why, "%s is \"%s\"; expected a whole number, at most %llu", option, text,
              (unsigned long long)most);
}

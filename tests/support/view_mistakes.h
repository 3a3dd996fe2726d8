/* What can be wrong with a view, whichever call it is given to. */
#ifndef KVSIFT_TESTS_VIEW_MISTAKES_H
#define KVSIFT_TESTS_VIEW_MISTAKES_H

#include "kvsift/kvsift.h"

enum { VIEW_MISTAKES = 9 };

/* Spoils a float32 view in way `which`; gives the status that must come and a word of the sentence. */
static inline kvsift_status view_mistake(kvsift_view *v, uint32_t which, const char **word) {
  static const float scale[2] = {1, 1};
  *word = "multiple";
  switch (which) {
    case 0: v->data = NULL; *word = "null"; return KVSIFT_INVALID_ARGUMENT;
    case 1: v->type = 4; *word = "type is 4"; return KVSIFT_INVALID_ARGUMENT;
    case 2: v->type = UINT32_MAX; *word = "type is 4294967295"; return KVSIFT_INVALID_ARGUMENT;
    case 3: v->data = (const char *)v->data + 2; return KVSIFT_MISALIGNED;
    case 4: v->token_stride += 1; return KVSIFT_MISALIGNED;
    case 5: v->head_stride += 2; return KVSIFT_MISALIGNED;
    case 6: v->scales = scale; *word = "scales"; return KVSIFT_INVALID_ARGUMENT;
    case 7: v->type = KVSIFT_I8; *word = "scales"; return KVSIFT_INVALID_ARGUMENT;
    default:
      v->type = KVSIFT_I8;
      v->scales = (const float *)((const char *)scale + 1);
      return KVSIFT_MISALIGNED;
  }
}

#endif

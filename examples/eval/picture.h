/* A policy's choices over the attention it chose from, step by step: what the report draws. */
#ifndef EVAL_PICTURE_H
#define EVAL_PICTURE_H

#include "contestant.h"
#include "json.h"

/* A cell is a character of the alphabet of base64url whose six bits are: how large the block's
 * largest share of attention is (four bits; 15 is 1, one less for each 0.8 octaves), whether the
 * policy kept the block, and whether it is among as many best blocks. */
typedef struct picture {
  uint32_t contestant; /* whose choices these are */
  uint32_t layers, query_heads, rows, columns;
  uint32_t first_tokens; /* that row 0 sees */
  char *cells;           /* [layers][query_heads][rows][columns + 1]: rows end with a zero */
} picture;

/* Room for `rows` decode steps, the first at a cache length of `first_tokens`. */
bool picture_create(picture *out, const contest *all, const model *m, uint32_t first_tokens,
                    uint32_t rows, failure *why);
void picture_release(picture *out);

/* False, and nothing set, where the picture has no such place. */
bool picture_set_row(picture *to, uint32_t layer, uint32_t head, uint32_t row, const char *cells);
const char *picture_row(const picture *of, uint32_t layer, uint32_t head, uint32_t row);
void picture_write_json(json *j, const picture *of, const contest *all);

/* Draws a layer's step; one outside the picture's rows, or for which there is no memory, is passed
 * over. */
void picture_draw(picture *to, const attention_input *input, const kvsift_selection *selection);

#endif

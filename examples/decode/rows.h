/* Attention rows for tools/train_predictor.py: rows.npy, float16 [streams][rows][tokens], with the
 * softmax rows of consecutive queries, and meta.json, which names each stream (a query head of a
 * layer). */
#ifndef DECODE_ROWS_H
#define DECODE_ROWS_H

#include "engine.h"
#include "script.h"

#define DUMPED_ROWS 192u

/* Full attention over the prompt; the rows of its last DUMPED_ROWS tokens go to `folder`, which is
 * made if need be. The first `dense_layers` layers are left out. */
bool rows_dump(engine *e, const script *of, const char *folder, uint32_t dense_layers,
               failure *why);

#endif

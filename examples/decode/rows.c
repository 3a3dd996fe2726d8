#include "rows.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>

#include "generate.h"
#include "json.h"
#include "kernels.h"
#include "memory.h"
#include "plain_attention.h"

typedef struct row_dump {
  attention plain;       /* does the attending */
  uint32_t dense_layers; /* not dumped */
  uint32_t first, rows, tokens;
  uint16_t *table; /* [streams][rows][tokens], halves */
  float *weights;  /* [tokens] */
} row_dump;

static void keep_rows(row_dump *dump, const attention_input *in, uint32_t row) {
  const model *m = in->model;
  for (uint32_t h = 0; h < m->query_heads; h++) {
    const float *query = in->queries + (uint64_t)h * m->head_dim;
    uint64_t stream = (uint64_t)(in->layer - dump->dense_layers) * m->query_heads + h;
    uint16_t *to = dump->table + (stream * dump->rows + row) * dump->tokens;
    plain_weights(in->cache, in->layer, h / (m->query_heads / m->kv_heads), query, in->tokens,
                  dump->weights);
    for (uint32_t t = 0; t < in->tokens; t++) to[t] = float_to_half(dump->weights[t]);
  }
}

static bool attend(void *self, const attention_input *input, float *out, failure *why) {
  row_dump *dump = self;
  if (!input->prompt && input->layer >= dump->dense_layers) {
    keep_rows(dump, input, input->tokens - dump->first);
  }
  return dump->plain.attend(dump->plain.self, input, out, why);
}

static bool advance(void *self, uint32_t tokens, failure *why) {
  row_dump *dump = self;
  return dump->plain.advance(dump->plain.self, tokens, why);
}

static bool read_all(engine *e, const script *of, const row_dump *dump, failure *why) {
  double start = seconds_now();
  for (uint32_t done = 0; done < of->prompt.count;) {
    const uint32_t *next = of->prompt.tokens + done;
    uint32_t before = dump->first - 1 > done ? dump->first - 1 - done : 0;
    uint32_t count = before > 0 ? engine_first_batch(before) : 1;
    if (interrupted()) return fail(why, "interrupted");
    if (before > 0 ? !engine_read(e, next, count, before - count, why)
                   : !engine_step(e, *next, why)) {
      return false;
    }
    done += count;
    show_progress(done, of->prompt.count, seconds_now() - start);
  }
  return true;
}

static FILE *open_in(const char *folder, const char *name, failure *why) {
  char path[1024];
  if (snprintf(path, sizeof path, "%s/%s", folder, name) >= (int)sizeof path) {
    fail(why, "%s: the path is too long", folder);
    return NULL;
  }
  FILE *to = fopen(path, "wb");
  if (to == NULL) fail(why, "%s: %s", path, strerror(errno));
  return to;
}

static bool close_whole(FILE *to, const char *name, failure *why) {
  bool done = ferror(to) == 0;
  done = fclose(to) == 0 && done;
  return done || fail(why, "%s could not be written to its end", name);
}

static bool write_table(const row_dump *dump, const char *folder, uint64_t streams, failure *why) {
  FILE *to = open_in(folder, "rows.npy", why);
  if (to == NULL) return false;
  char header[118]; /* with the ten bytes before it a multiple of 64 */
  int used = snprintf(header, sizeof header,
                      "{'descr': '<f2', 'fortran_order': False, 'shape': (%" PRIu64 ", %" PRIu32
                      ", %" PRIu32 "), }",
                      streams, dump->rows, dump->tokens);
  memset(header + used, ' ', sizeof header - (size_t)used);
  header[sizeof header - 1] = '\n';
  fwrite("\x93NUMPY\x01\x00\x76\x00", 1, 10, to);
  fwrite(header, 1, sizeof header, to);
  fwrite(dump->table, 2, streams * dump->rows * dump->tokens, to);
  return close_whole(to, "rows.npy", why);
}

static bool write_meta(const row_dump *dump, const model *m, const char *folder, failure *why) {
  FILE *to = open_in(folder, "meta.json", why);
  if (to == NULL) return false;
  json j = {.to = to};
  json_open(&j, NULL, '{');
  json_whole(&j, "first_length", dump->first);
  json_text(&j, "model", m->gguf.name);
  json_open(&j, "streams", '[');
  for (uint32_t layer = dump->dense_layers; layer < m->layers; layer++) {
    for (uint32_t head = 0; head < m->query_heads; head++) {
      json_open(&j, NULL, '{');
      json_text(&j, "text", "prompt");
      json_whole(&j, "layer", layer);
      json_whole(&j, "head", head);
      json_close(&j, '}');
    }
  }
  json_close(&j, ']');
  json_close(&j, '}');
  return close_whole(to, "meta.json", why);
}

bool rows_dump(engine *e, const script *of, const char *folder, uint32_t dense_layers,
               failure *why) {
  const model *m = e->model;
  uint32_t tokens = of->prompt.count, rows = tokens < DUMPED_ROWS ? tokens : DUMPED_ROWS;
  if (dense_layers >= m->layers) {
    return fail(
        why, "--dense-layers is %" PRIu32 "; the model has %" PRIu32 " layers, so no row is left",
        dense_layers, m->layers);
  }
  if (mkdir(folder, 0777) != 0 && errno != EEXIST) {
    return fail(why, "%s: %s", folder, strerror(errno));
  }
  uint64_t streams = (uint64_t)(m->layers - dense_layers) * m->query_heads;
  row_dump dump = {plain_attention(), dense_layers, tokens - rows + 1, rows, tokens, NULL, NULL};
  dump.table = memory_take(streams * rows * tokens, sizeof *dump.table);
  dump.weights = memory_take(tokens, sizeof *dump.weights);
  bool done = dump.table != NULL && dump.weights != NULL;
  if (!done)
    fail(why, "no memory for %" PRIu64 " rows of %" PRIu32 " tokens", streams * rows, tokens);
  e->attention = (attention){&dump, attend, advance};
  done = done && read_all(e, of, &dump, why) && write_table(&dump, folder, streams, why) &&
         write_meta(&dump, m, folder, why);
  memory_give(dump.table);
  memory_give(dump.weights);
  if (done) printf("%s: %" PRIu64 " streams of %" PRIu32 " rows\n", folder, streams, rows);
  return done;
}

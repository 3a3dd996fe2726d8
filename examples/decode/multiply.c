#include "multiply.h"

#include <string.h>

#include "kernels.h"

typedef struct multiply_work {
  const product *products;
  uint32_t product_count;
  const float *input;
  uint32_t inputs;
  float *scratch;
  const kernel_table *table;
} multiply_work;

uint64_t multiply_scratch(const workers *pool, uint32_t most_columns) {
  return (uint64_t)workers_count(pool) * TILE_ROWS * most_columns;
}

static const uint8_t *row_data(const matrix *from, uint32_t row) {
  return (const uint8_t *)from->data + row * from->row_bytes;
}

void expand_matrix_row(const matrix *from, uint32_t row, float *out) {
  if (from->type == GGML_F32) {
    memcpy(out, row_data(from, row), from->row_bytes);
  } else {
    kernels()->expand_row(from->type, row_data(from, row), from->columns, out);
  }
}

/* Rows as floats: where they lie, or expanded once for all inputs. Past the last row the last one
 * stands in. */
static void gather_rows(const multiply_work *w, const matrix *from, uint32_t first, float *scratch,
                        const float **rows) {
  for (uint32_t r = 0; r < TILE_ROWS; r++) {
    uint32_t row = first + r < from->rows ? first + r : from->rows - 1;
    if (from->type == GGML_F32) {
      rows[r] = (const float *)(const void *)row_data(from, row);
    } else {
      float *expanded = scratch + (uint64_t)r * from->columns;
      w->table->expand_row(from->type, row_data(from, row), from->columns, expanded);
      rows[r] = expanded;
    }
  }
}

static void put(const product *p, uint32_t first, uint32_t input, const float *values) {
  for (uint32_t r = 0; r < TILE_ROWS && first + r < p->weights->rows; r++) {
    float bias = p->bias != NULL ? p->bias[first + r] : 0;
    p->out[(uint64_t)input * p->weights->rows + first + r] = values[r] + bias;
  }
}

static void multiply_tile(const multiply_work *w, const product *p, uint32_t first,
                          float *scratch) {
  const float *rows[TILE_ROWS];
  float values[TILE_INPUTS][TILE_ROWS];
  uint32_t columns = p->weights->columns, i = 0;
  gather_rows(w, p->weights, first, scratch, rows);
  for (; i + TILE_INPUTS <= w->inputs; i += TILE_INPUTS) {
    w->table->tile(rows, w->input + (uint64_t)i * columns, columns, columns, values[0], TILE_ROWS);
    for (uint32_t j = 0; j < TILE_INPUTS; j++) put(p, first, i + j, values[j]);
  }
  for (; i < w->inputs; i++) {
    w->table->column(rows, w->input + (uint64_t)i * columns, columns, values[0]);
    put(p, first, i, values[0]);
  }
}

static void multiply_part(void *context, uint32_t part, uint32_t parts) {
  const multiply_work *w = context;
  for (uint32_t i = 0; i < w->product_count; i++) {
    const product *p = &w->products[i];
    uint64_t tiles = (p->weights->rows + TILE_ROWS - 1) / TILE_ROWS;
    float *scratch = w->scratch + (uint64_t)part * TILE_ROWS * p->weights->columns;
    for (uint64_t t = tiles * part / parts; t < tiles * (part + 1) / parts; t++) {
      multiply_tile(w, p, (uint32_t)t * TILE_ROWS, scratch);
    }
  }
}

void multiply(workers *pool, const product *products, uint32_t product_count, const float *input,
              uint32_t inputs, float *scratch) {
  multiply_work work = {products, product_count, input, inputs, scratch, kernels()};
  workers_run(pool, multiply_part, &work);
}

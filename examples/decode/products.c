#include "products.h"

#include "memory.h"

#define UPLOAD_FLOATS (1u << 20) /* of a matrix at a time */

typedef struct device_matrix {
  const matrix *from;
  float *weights;
  cublas_plan step, batch; /* for one input, and for ENGINE_BATCH of them */
} device_matrix;

struct products {
  const gpu *gpu;
  cublas *cublas;
  device_matrix *list; /* in the order in which a pass needs them */
  uint32_t count, next;
  float *input, *output;
};

static void list_matrices(products *with, const model *m) {
  device_matrix *at = with->list;
  for (uint32_t i = 0; i < m->layers; i++) {
    const model_layer *l = &m->layer[i];
    const matrix *all[] = {&l->query, &l->key, &l->value, &l->output, &l->gate, &l->up, &l->down};
    for (unsigned k = 0; k < sizeof all / sizeof *all; k++) (at++)->from = all[k];
  }
  at->from = &m->unembedding;
}

static bool upload(const products *with, const device_matrix *to, float *rows, failure *why) {
  const matrix *from = to->from;
  uint32_t most = from->columns < UPLOAD_FLOATS ? UPLOAD_FLOATS / from->columns : 1;
  for (uint32_t first = 0; first < from->rows; first += most) {
    uint32_t count = from->rows - first < most ? from->rows - first : most;
    for (uint32_t i = 0; i < count; i++) {
      expand_matrix_row(from, first + i, rows + (uint64_t)i * from->columns);
    }
    uint64_t at = (uint64_t)first * from->columns, floats = (uint64_t)count * from->columns;
    if (!gpu_send(with->gpu, to->weights + at, rows, floats * sizeof(float), why)) return false;
  }
  return true;
}

static bool place(const products *with, device_matrix *to, float *rows, failure *why) {
  uint32_t outputs = to->from->rows, inputs = to->from->columns;
  to->weights = gpu_take(with->gpu, (uint64_t)outputs * inputs * sizeof(float));
  if (to->weights == NULL) return fail(why, "no device memory for %u x %u weights", outputs, inputs);
  return upload(with, to, rows, why) &&
         cublas_make_plan(with->cublas, &to->step, outputs, inputs, 1, why) &&
         cublas_make_plan(with->cublas, &to->batch, outputs, inputs, ENGINE_BATCH, why);
}

static bool place_all(products *with, failure *why) {
  uint32_t widest = 0, tallest = 0;
  for (uint32_t i = 0; i < with->count; i++) {
    const matrix *from = with->list[i].from;
    if (from->columns > widest) widest = from->columns;
    if (from->rows > tallest) tallest = from->rows;
  }
  with->input = gpu_take(with->gpu, (uint64_t)ENGINE_BATCH * widest * sizeof(float));
  with->output = gpu_take(with->gpu, (uint64_t)ENGINE_BATCH * tallest * sizeof(float));
  float *rows = memory_take(widest > UPLOAD_FLOATS ? widest : UPLOAD_FLOATS, sizeof *rows);
  bool done = with->input != NULL && with->output != NULL && rows != NULL;
  if (!done) fail(why, "no memory for products of %u x %u weights", tallest, widest);
  for (uint32_t i = 0; i < with->count && done; i++) done = place(with, &with->list[i], rows, why);
  memory_give(rows);
  return done;
}

bool products_create(products **out, const gpu *on, const model *m, failure *why) {
  products *made = memory_take(1, sizeof *made);
  *out = NULL;
  if (made == NULL) return fail(why, "no memory for the device's weights");
  made->gpu = on;
  bool done = cublas_open(&made->cublas, on, why), missing = done && made->cublas == NULL;
  if (done && !missing) {
    made->count = 7 * m->layers + 1;
    made->list = memory_take(made->count, sizeof *made->list);
    done = made->list != NULL || fail(why, "no memory for %u matrices", made->count);
    if (done) list_matrices(made, m);
    if (done && place_all(made, why)) {
      *out = made;
      return true;
    }
  }
  gpu_wait(on); /* for weights on their way */
  products_release(made);
  return missing;
}

void products_release(products *with) {
  if (with == NULL) return;
  for (uint32_t i = 0; with->list != NULL && i < with->count; i++) {
    cublas_release_plan(with->cublas, &with->list[i].step);
    cublas_release_plan(with->cublas, &with->list[i].batch);
    gpu_give(with->gpu, with->list[i].weights);
  }
  gpu_give(with->gpu, with->input);
  gpu_give(with->gpu, with->output);
  cublas_close(with->cublas);
  memory_give(with->list);
  memory_give(with);
}

const char *products_name(const products *with) { return cublas_name(with->cublas); }

/* What is asked for mostly comes after what was asked for last. */
static const device_matrix *find(products *with, const matrix *weights) {
  while (with->list[with->next].from != weights) with->next = (with->next + 1) % with->count;
  return &with->list[with->next];
}

static void add_bias(const product *p, uint32_t inputs) {
  for (uint32_t i = 0; p->bias != NULL && i < inputs; i++) {
    float *out = p->out + (uint64_t)i * p->weights->rows;
    for (uint32_t r = 0; r < p->weights->rows; r++) out[r] += p->bias[r];
  }
}

/* Several inputs are multiplied as a whole batch: what lies behind them is of an earlier one. */
static bool multiply_one(products *with, const product *p, uint32_t inputs, failure *why) {
  const device_matrix *m = find(with, p->weights);
  const cublas_plan *plan = inputs == 1 ? &m->step : &m->batch;
  uint64_t bytes = (uint64_t)inputs * p->weights->rows * sizeof(float);
  if (!cublas_multiply(with->cublas, plan, m->weights, with->input, with->output, why) ||
      !gpu_receive(with->gpu, p->out, with->output, bytes, why)) {
    return false;
  }
  add_bias(p, inputs);
  return true;
}

static bool multiply_all(void *self, const product *list, uint32_t count, const float *input,
                         uint32_t inputs, failure *why) {
  products *with = self;
  uint64_t bytes = (uint64_t)inputs * list[0].weights->columns * sizeof(float);
  if (!gpu_send(with->gpu, with->input, input, bytes, why)) return false;
  for (uint32_t i = 0; i < count; i++) {
    if (!multiply_one(with, &list[i], inputs, why)) return false;
  }
  return true;
}

multiplier products_multiplier(products *with) { return (multiplier){with, multiply_all}; }

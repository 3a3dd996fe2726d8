/* The decode loop: a model, a long prompt, and a KV cache of which only a part is read. */
#include <inttypes.h>
#include <unistd.h>

#include "compare.h"
#include "device.h"
#include "offload.h"
#include "options.h"
#include "report.h"
#include "rows.h"

#define WEIGHT_BYTES_A_THREAD (16u << 20)

/* More threads than this wait for each other longer than they work. */
static uint32_t worthwhile_threads(const model *m) {
  long cores = sysconf(_SC_NPROCESSORS_ONLN);
  uint64_t worth = 1 + m->file.size / WEIGHT_BYTES_A_THREAD;
  return cores > 0 && worth > (uint64_t)cores ? (uint32_t)cores : (uint32_t)worth;
}

static bool compare_and_report(engine *e, const script *asked, const options *from, failure *why) {
  kvsift_policy_config config;
  comparison result;
  if (!options_config(from, e->model->layers, &config, why)) return false;
  if (from->on_device) return device_answer(e, asked, &config, from, why);
  if (from->offload != NULL) return offload_answer(e, asked, &config, from, why);
  bool done = compare(&result, e, asked, &config, from->compare, why);
  if (done) {
    report_print(&result, asked, from);
    done = from->json == NULL || report_write_json(&result, asked, from, e, why);
  }
  comparison_release(&result);
  return done;
}

static bool run_script(const model *m, workers *pool, const options *from, failure *why) {
  script asked;
  engine e;
  if (!script_make(&asked, m, from, why)) return false;
  bool done = engine_create(&e, m, pool, from->cache_type, script_longest(&asked), why);
  if (done) {
    uint32_t skipped = from->dense_layers == UNSET ? 0 : from->dense_layers;
    done = from->dump_rows != NULL ? rows_dump(&e, &asked, from->dump_rows, skipped, why)
                                   : compare_and_report(&e, &asked, from, why);
    engine_release(&e);
  }
  script_release(&asked);
  return done;
}

static bool run(const options *from, failure *why) {
  model m;
  if (!model_load(&m, from->model, why)) return false;
  uint32_t threads = from->threads > 0 ? from->threads : worthwhile_threads(&m);
  workers *pool = workers_start(threads, why);
  if (pool != NULL) {
    printf("%s: %" PRIu32 " layers, %" PRIu32 " query heads over %" PRIu32 " KV heads of %" PRIu32
           ", %" PRIu32 " pieces; %" PRIu32 " thread%s\n",
           from->model, m.layers, m.query_heads, m.kv_heads, m.head_dim, m.vocabulary, threads,
           threads == 1 ? "" : "s");
  }
  bool done = pool != NULL && run_script(&m, pool, from, why);
  workers_stop(pool);
  model_release(&m);
  return done;
}

int main(int count, char **arguments) {
  options from;
  failure why = {""};
  interrupt_catch();
  bool done = options_read(&from, count, arguments, &why);
  if (done && from.help) {
    options_print_help();
    return 0;
  }
  if (done && run(&from, &why)) return 0;
  fflush(stdout);
  fprintf(stderr, "%sdecode: %s\n", interrupted() ? "\n" : "", why.text);
  return interrupted() ? 130 : 1;
}

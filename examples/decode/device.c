#include "device.h"

#include "device_cache.h"
#include "generate.h"

static void release(device *d) {
  products_release(d->products);
  sift_release(&d->sift);
  gpu_close(d->gpu);
}

/* Says by whom weights are multiplied. */
static bool take_products(device *d, const model *m, failure *why) {
  if (!products_create(&d->products, d->gpu, m, why)) return false;
  if (d->products != NULL) {
    printf("products by %s\n", products_name(d->products));
  } else {
    printf("products on the CPU (%s)\n", why->text);
  }
  return true;
}

static bool open_device(device *d, const model *m, const kvsift_policy_config *config,
                        failure *why) {
  if (!sift_create(&d->sift, config, why)) return false;
  d->gpu = gpu_open(why);
  return d->gpu != NULL && take_products(d, m, why);
}

/* The prompt once more, as if it had not been read, with products on the device. */
static bool read_again(engine *e, const script *asked, device *d, double *seconds, failure *why) {
  if (kvsift_policy_reset(d->sift.policy) != KVSIFT_OK) {
    return fail(why, "%s", kvsift_last_error(d->sift.policy));
  }
  engine_truncate(e, 0);
  e->multiplier = products_multiplier(d->products);
  return read_prompt(e, asked, seconds, why);
}

static bool answer_on_cpu(engine *e, const script *asked, const device *d, generation *run,
                          failure *why) {
  sift copy = {0}, *list[] = {&copy};
  sift_set set = {list, 1, NULL};
  if (!sift_fork(&d->sift, &copy, why)) return false;
  e->attention = sift_attention(&set);
  printf("on the CPU:");
  bool done = generate(e, asked, true, run, why);
  sift_release(&copy);
  return done;
}

/* The engine's own rows of the prompt are spoilt once they are on the device: an answer that is
 * right came from there. */
static bool answer_on_device(engine *e, const script *asked, const device *d, device_cache *rows,
                             generation *run, failure *why) {
  engine_truncate(e, asked->prompt.count - 1);
  if (!device_cache_fill(rows, &e->cache, &d->sift, why)) return false;
  cache_spoil(&e->cache);
  e->attention = device_cache_attention(rows);
  printf("on the device:");
  return generate(e, asked, true, run, why);
}

static bool report(const device *d, const script *asked, const generation *cpu,
                   const generation *gpu_run, const double *seconds, failure *why) {
  bool same = generation_same(cpu, gpu_run);
  printf("\n  tokens/s           %.1f on the CPU, %.1f with attention%s on the device\n",
         cpu->fed.count / cpu->seconds, gpu_run->fed.count / gpu_run->seconds,
         d->products != NULL ? " and products" : "");
  if (d->products != NULL) {
    printf("  of the prompt      %.0f on the CPU, %.0f with products on the device\n",
           asked->prompt.count / seconds[0], asked->prompt.count / seconds[1]);
  }
  printf("  same text          %s\n", same ? "yes" : "NO");
  return same || fail(why, "the device's answer differs from the CPU's");
}

/* Reads the prompt on the CPU, and answers there where both are to be compared. */
static bool run_on_cpu(engine *e, const script *asked, const device *d, bool answers,
                       generation *run, double *seconds, failure *why) {
  return read_prompt(e, asked, seconds, why) && (!answers || answer_on_cpu(e, asked, d, run, why));
}

static bool answer_twice(engine *e, const script *asked, device *d, const options *from,
                         failure *why) {
  device_cache rows = {.rows = 0};
  generation cpu = {0}, on_device = {0};
  sift *list[] = {&d->sift};
  sift_set set = {list, 1, NULL};
  double seconds[2] = {0, 0}; /* of reading the prompt: on the CPU, with products on the device */
  bool done = device_cache_create(&rows, d->gpu, &d->sift, &e->cache, why);
  e->attention = sift_attention(&set);
  if (done && (from->compare || d->products == NULL)) {
    done = run_on_cpu(e, asked, d, from->compare, &cpu, &seconds[0], why);
    e->attention = sift_attention(&set);
  }
  if (done && d->products != NULL) done = read_again(e, asked, d, &seconds[1], why);
  done = done && answer_on_device(e, asked, d, &rows, &on_device, why);
  if (done && from->compare) done = report(d, asked, &cpu, &on_device, seconds, why);
  device_cache_release(&rows);
  generation_release(&cpu);
  generation_release(&on_device);
  return done;
}

bool device_answer(engine *e, const script *asked, const kvsift_policy_config *chosen,
                   const options *from, failure *why) {
  device d = {0};
  kvsift_policy_config config = *chosen;
  sift_set_geometry(&config, e->model, e->cache.capacity);
  if (from->offload != NULL) config.calibration_period = 0; /* would read the whole cache */
  bool done = open_device(&d, e->model, &config, why) &&
              (from->offload != NULL ? device_offload_answer(e, asked, &d, from, why)
                                     : answer_twice(e, asked, &d, from, why));
  release(&d);
  e->multiplier = (multiplier){NULL, NULL};
  return done;
}

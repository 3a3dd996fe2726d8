#include "device.h"

#include <string.h>

#include "device_cache.h"
#include "generate.h"
#include "products.h"

typedef struct device {
  gpu *gpu;
  sift sift; /* the policy on the CPU, which reads the prompt */
  device_cache cache;
  products *products; /* null: the CPU's */
} device;

static void release(device *d) {
  device_cache_release(&d->cache);
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
static bool answer_on_device(engine *e, const script *asked, device *d, generation *run,
                             failure *why) {
  const cache *c = &e->cache;
  engine_truncate(e, asked->prompt.count - 1);
  if (!device_cache_fill(&d->cache, c, &d->sift, why)) return false;
  memset(c->keys, 0x7f, d->cache.rows * c->row_bytes);
  memset(c->values, 0x7f, d->cache.rows * c->row_bytes);
  e->attention = device_cache_attention(&d->cache);
  printf("on the device:");
  return generate(e, asked, true, run, why);
}

static bool report(const device *d, const script *asked, const generation *cpu,
                   const generation *gpu_run, const double *seconds, failure *why) {
  bool same = cpu->best.count == gpu_run->best.count &&
              memcmp(cpu->best.tokens, gpu_run->best.tokens,
                     cpu->best.count * sizeof *cpu->best.tokens) == 0;
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

bool device_answer(engine *e, const script *asked, const kvsift_policy_config *chosen,
                   const options *from, failure *why) {
  device d = {0};
  generation cpu = {0}, on_device = {0};
  kvsift_policy_config config = *chosen;
  sift *list[] = {&d.sift};
  sift_set set = {list, 1, NULL};
  double seconds[2] = {0, 0}; /* of reading the prompt: on the CPU, with products on the device */
  sift_set_geometry(&config, e->model, e->cache.capacity);
  bool done = sift_create(&d.sift, &config, why);
  d.gpu = done ? gpu_open(why) : NULL;
  done = done && d.gpu != NULL && device_cache_create(&d.cache, d.gpu, &d.sift, &e->cache, why) &&
         take_products(&d, e->model, why);
  e->attention = sift_attention(&set);
  if (done && (from->compare || d.products == NULL)) {
    done = run_on_cpu(e, asked, &d, from->compare, &cpu, &seconds[0], why);
    e->attention = sift_attention(&set);
  }
  if (done && d.products != NULL) done = read_again(e, asked, &d, &seconds[1], why);
  done = done && answer_on_device(e, asked, &d, &on_device, why);
  if (done && from->compare) done = report(&d, asked, &cpu, &on_device, seconds, why);
  release(&d);
  e->multiplier = (multiplier){NULL, NULL};
  generation_release(&cpu);
  generation_release(&on_device);
  return done;
}

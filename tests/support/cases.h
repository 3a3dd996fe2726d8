/* Random cases: one seed each, named in every failure. */
#ifndef KVSIFT_TESTS_CASES_H
#define KVSIFT_TESTS_CASES_H

#include <stdbool.h>
#include <stdint.h>

#include "kvsift/kvsift.h"

/* Runs over seeds 1, 2, ...: `count` of them, or as many as fit in KVSIFT_TEST_SECONDS for each loop where that is set.
 * KVSIFT_TEST_SEED runs that one alone; KVSIFT_TEST_CASES, for slow machines, is the most that `count` stands for. */
typedef struct cases {
  uint64_t seed;
  uint32_t count, done;
  double until;
} cases;

cases cases_begin(uint32_t count);
bool cases_next(cases *c);

/* What is being tested, for the message of a failure. */
void cases_name(const char *format, ...) __attribute__((format(printf, 1, 2)));

void expect_failed(const char *file, int line, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* Fails the test with a sentence, the case and its seed. */
#define expect(condition, ...)                                         \
  do {                                                                 \
    if (!(condition)) expect_failed(__FILE__, __LINE__, __VA_ARGS__);  \
  } while (0)

/* A call that must succeed; prints the policy's sentence where it does not. */
#define must(policy, call)                                                                              \
  do {                                                                                                  \
    const kvsift_status must_status_ = (call);                                                          \
    expect(must_status_ == KVSIFT_OK, "%s: %s: %s", #call, kvsift_status_string(must_status_),          \
           kvsift_last_error(policy));                                                                  \
  } while (0)

#endif

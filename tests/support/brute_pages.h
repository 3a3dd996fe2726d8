/* Scores of pages, for brute.c. */
#ifndef KVSIFT_TESTS_BRUTE_PAGES_H
#define KVSIFT_TESTS_BRUTE_PAGES_H

#include "brute.h"

void brute_page_scores(const brute *b, const session_answer *a, uint32_t list, uint32_t pages, double *low, double *high);

#endif

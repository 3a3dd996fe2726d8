/* The results as one JSON file, with 95% confidence intervals. */
#ifndef EVAL_RESULTS_JSON_H
#define EVAL_RESULTS_JSON_H

#include "results.h"

bool results_write_json(const results *of, const contest *all, const eval_options *from,
                        failure *why);

#endif

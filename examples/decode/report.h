/* Both ways of attending side by side, for people and as JSON. */
#ifndef DECODE_REPORT_H
#define DECODE_REPORT_H

#include "compare.h"
#include "options.h"

void report_print(const comparison *of, const script *asked, const options *from);
bool report_write_json(const comparison *of, const script *asked, const options *from,
                       const engine *e, failure *why);

#endif

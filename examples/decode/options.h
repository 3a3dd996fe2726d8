/* What the command line asks for. */
#ifndef DECODE_OPTIONS_H
#define DECODE_OPTIONS_H

#include <kvsift/kvsift.h>

#include "failure.h"

#define UNSET UINT32_MAX /* the method's own default holds */

typedef struct options {
  const char *model;
  const char *prompt; /* null: the built-in one */
  const char *file;   /* read the prompt from here */
  const char *json;
  const char *dump_rows;
  const char *offload; /* "host" or a file: where the cache lies; null: in fast memory */
  const char *trace;   /* with offload: what happened when */
  bool on_device;      /* cache and attention on a CUDA device */
  uint32_t tokens; /* to generate; UNSET: enough for the answers */
  kvsift_method method;
  float budget_share; /* of the context; 0 where budget_tokens is set */
  uint32_t budget_tokens;
  float target_mass;
  uint32_t tail, moments, grouping, tensor_attention, block, sink, local, dense_layers, fast_blocks,
      late_blocks;
  kvsift_type cache_type;
  uint32_t threads; /* 0: as many as the model is worth */
  uint64_t seed;
  bool compare;
  bool help;
} options;

/* Fills `out` with the defaults and then from the arguments. */
bool options_read(options *out, int count, char **arguments, failure *why);
void options_print_help(void);

/* The method's defaults with what the options change, for a model of `layers` layers; geometry is
 * left to be set. */
bool options_config(const options *from, uint32_t layers, kvsift_policy_config *out, failure *why);

/* "page-stats + moments" */
void options_describe(const options *from, char *text, uint32_t room);

/* Positions in the lists of names that the options accept; UNSET where there is none. */
uint32_t name_index(const char *const *names, uint32_t count, const char *name);

#endif

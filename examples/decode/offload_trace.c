#include "memory.h"
#include "offload.h"

static const char *const names[] = {"read", "write",   "commit", "prefetch",
                                    "resolve", "wait", "append"};

static void write_event(FILE *file, const kvsift_store_event *e, bool last) {
  fprintf(file,
          "{\"name\": \"%s\", \"ph\": \"X\", \"pid\": 1, \"tid\": %u, \"ts\": %.3f, \"dur\": %.3f, "
          "\"args\": {\"layer\": %u, \"kv_head\": %u, \"block\": %u, \"blocks\": %u}}%s\n",
          names[e->kind], e->thread, (double)e->begin_ns / 1e3,
          (double)(e->end_ns - e->begin_ns) / 1e3, e->layer, e->kv_head, e->block, e->blocks,
          last ? "" : ",");
}

bool offload_write_trace(kvsift_store *store, const char *path, failure *why) {
  enum { ROOM = 1 << 16 };
  uint32_t count = 0;
  kvsift_store_event *events = memory_take(ROOM, sizeof *events);
  FILE *file = fopen(path, "w");
  bool done = events != NULL && file != NULL;
  if (done) done = kvsift_store_read_trace(store, events, ROOM, &count) == KVSIFT_OK;
  if (done) {
    fputs("[\n", file);
    for (uint32_t i = 0; i < count; i++) write_event(file, &events[i], i + 1 == count);
    done = fputs("]\n", file) >= 0;
  }
  if (file != NULL) done = fclose(file) == 0 && done;
  memory_give(events);
  return done || fail(why, "%s: the trace cannot be written", path);
}

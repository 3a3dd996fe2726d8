/* kvsift: a KV cache larger than fast memory. One store holds one sequence, all layers and KV heads.
 *
 * The slow tier (a file, the caller's memory, or a device the caller implements) holds every completed block. The fast
 * tier is a fixed number of block slots in the caller's arena, read in place by kvsift_attend. Nothing is evicted for
 * good. A block is block_tokens tokens of one KV head in one layer: keys and values lie together, so one read brings
 * both.
 *
 *     kvsift_store_config_init -> geometry, fast_blocks, path -> kvsift_store_arena_size -> kvsift_store_create
 *     each layer of a step:   kvsift_store_append(the new token)
 *                             kvsift_select_blocks -> kvsift_store_resolve -> kvsift_attend
 *                             kvsift_store_prefetch(what the next token is expected to need)
 *
 * Calibration steps (EMA, AttentionPredictor) read every key of the layer: set the policy's calibration_period to 0, or on those
 * steps read the layer in parts (kvsift_store_read), attend to it with a kernel of your own, and hand its rows to
 * kvsift_observe_attention. Without its observation a sparse calibration's output needs the selection alone (kvsift_attend).
 *
 * Threads. A handle belongs to one thread at a time. The store has worker threads of its own, made at create and joined
 * at close, their stacks in the arena. Append, resolve, wait, read, truncate, flush and close may wait for them; prefetch
 * and poll never do. After create nothing allocates.
 *
 * Same tokens whatever the timing: with the late caps off (the default) resolve waits for every block of the selection.
 *
 * Files. Written through io_uring where the kernel has it, else by threads with pread and pwrite; with O_DIRECT where the
 * file system has it. Every record is checksummed; a block counts as completed once an entry that names the checksums of
 * all its records (all layers, all heads) has been written after them, so a process may die at any point: open finds
 * every completed block, and drops the first one that does not hold together and all after it. A record whose checksum
 * is wrong when it is fetched is answered with CORRUPT and never attended to.
 */
#ifndef KVSIFT_STORE_H
#define KVSIFT_STORE_H

#include <stddef.h>
#include <stdint.h>

#include <kvsift/kvsift.h>

#ifdef __cplusplus
extern "C" {
#endif
#ifdef __GNUC__
#pragma GCC visibility push(default)
#endif

#define KVSIFT_STORE_NO_LIMIT UINT32_MAX

/* Slow tiers. */
enum {
  KVSIFT_STORE_FILE = 0,
  KVSIFT_STORE_HOST = 1,        /* memory of the caller's: host RAM in front of a device, or for tests */
  KVSIFT_STORE_CUSTOM = 2       /* kvsift_store_device */
};

/* How a file is read and written. */
enum { KVSIFT_STORE_IO_AUTO = 0, KVSIFT_STORE_IO_URING = 1, KVSIFT_STORE_IO_THREADS = 2 };

/* One piece of memory of a transfer that is contiguous on the slow tier. */
typedef struct kvsift_store_span {
  void *data;
  uint64_t bytes;
} kvsift_store_span;

/* A slow tier of the caller's own. read and write are called from the worker threads, several at a time, and from the
 * caller's thread in create, open and truncate; sync from the caller's thread in flush and close. A worker's stack has 256 KiB,
 * no guard page, and memory of the store's below it: what needs more hands over to a thread of its own. Signals are
 * blocked there, but for those of faults. None of the three may call the store.
 * Up to 16 spans; offset and bytes are multiples of `alignment`, but for the rest of a short transfer.
 * read and write return the bytes done, which may be fewer than asked for (the rest is asked for again; 0 from read means
 * the end), or a negative errno. sync returns 0 or a negative errno, and may be null. */
typedef struct kvsift_store_device {
  void *context;
  int64_t (*read)(void *context, uint64_t offset, const kvsift_store_span *spans, uint32_t count);
  int64_t (*write)(void *context, uint64_t offset, const kvsift_store_span *spans, uint32_t count);
  int32_t (*sync)(void *context);
} kvsift_store_device;

/* Configuration. Call kvsift_store_config_init, then set what differs. */
typedef struct kvsift_store_config {
  uint32_t struct_size;
  uint32_t backend;             /* KVSIFT_STORE_* */
  /* geometry: no defaults, must be set; query_heads 0 means kv_heads */
  uint32_t layers;
  uint32_t query_heads;
  uint32_t kv_heads;
  uint32_t head_dim;
  uint32_t max_tokens;
  uint32_t block_tokens;        /* a power of two, 1 .. 256; 16 by default */
  kvsift_type type;             /* of the rows that append gets: F32, F16 or BF16; F16 by default */
  kvsift_type storage;          /* of the rows that are kept: the same, or I8 with a scale for each row */
  /* fast tier */
  uint32_t fast_blocks;         /* a layer has fast_blocks * kv_heads slots, which its KV heads share */
  uint32_t resident_layers;     /* the first layers keep everything in fast memory: those that attend to everything */
  uint32_t sink_tokens;         /* pinned: the first tokens, */
  uint32_t local_tokens;        /*   and the last; by default 16 and 64 */
  /* late caps: how much resolve may wait for once the query is there. What is not there then is left to the tail, and
   * fetched all the same, for the steps to come */
  uint32_t late_blocks;         /* most blocks of a layer that a resolve fetches and waits for; NO_LIMIT by default */
  uint32_t late_microseconds;   /* longest wait of a resolve; NO_LIMIT by default */
  uint32_t max_ranges;          /* with a late cap: ranges and blocks a list may hold; 0: enough for whole blocks */
  /* slow tier */
  uint32_t alignment;           /* of records in bytes, a power of two, 64 .. 65536; 4096 suits every disk. Where the disk
                                   has 512-byte sectors 512 saves padding (16 tokens of d 128 in I8: 4.5 KiB, not 8) */
  uint32_t io;                  /* KVSIFT_STORE_IO_*; URING with FILE only */
  uint32_t direct;              /* 1: O_DIRECT where the file system has it (default); 0: through the page cache */
  uint32_t threads;             /* worker threads, 1 .. 64; 2 by default */
  uint32_t depth;               /* io_uring: transfers in flight for each thread, 1 .. 256; 32 by default */
  uint32_t checksums;           /* 1 by default; 0 only makes sense for HOST */
  uint32_t verify;              /* 1: open reads back every record and checks it (default); 0: fetches do */
  uint32_t timing;              /* 1: read the clock for waited_ns and read_ns of the stats; 0 by default */
  uint32_t trace_events;        /* size of the trace ring; 0: no trace */
  const char *path;             /* FILE */
  void *host_memory;            /* HOST: kvsift_store_slow_size bytes, aligned to `alignment`, outlives the store */
  uint64_t host_bytes;
  const kvsift_store_device *device; /* CUSTOM; copied */
  kvsift_error *error;          /* where arena_size, create and open leave their sentence; may be null */
} kvsift_store_config;

typedef struct kvsift_store kvsift_store;
typedef uint64_t kvsift_ticket; /* never 0 */

/* ---- life cycle ---- */

/* Sets the defaults; struct_size must be set before the call. INVALID_ARGUMENT (null, unknown backend),
 * INVALID_STRUCT_SIZE. */
kvsift_status kvsift_store_config_init(kvsift_store_config *config, uint32_t backend);

/* Bytes and alignment of the arena: exact, and all the memory the store uses (a ring of io_uring is the kernel's, mapped
 * at create). alignment may be null. Returns any status a bad config gets. */
kvsift_status kvsift_store_arena_size(const kvsift_store_config *config, uint64_t *bytes, uint64_t *alignment);

/* Bytes of the slow tier: the file's size, or what host_memory or a device must hold. */
kvsift_status kvsift_store_slow_size(const kvsift_store_config *config, uint64_t *bytes);

/* Makes an empty store; a file is created or emptied, locked, and preallocated. INVALID_ARGUMENT, INVALID_STRUCT_SIZE,
 * ARENA_TOO_SMALL, MISALIGNED (arena, host_memory), UNSUPPORTED (`io` asks for io_uring, which the kernel does not allow). IO
 * names the file (a full disk shows here). On failure *store is null and the memory may be used again. */
kvsift_status kvsift_store_create(const kvsift_store_config *config, void *arena, uint64_t bytes, kvsift_store **store);

/* Opens what an earlier store left, after a close or a crash. kvsift_store_get_info says how many tokens are there: a
 * multiple of block_tokens, append goes on from it. As create, and CORRUPT (no store, or a damaged header),
 * VERSION_MISMATCH, CONFIG_MISMATCH (names the field). */
kvsift_status kvsift_store_open(const kvsift_store_config *config, void *arena, uint64_t bytes, kvsift_store **store);

/* Waits until all completed blocks are written, and asks the slow tier to make them durable (fdatasync). Writes that
 * failed, or fail meanwhile, are tried once more; if they fail again, IO. */
kvsift_status kvsift_store_flush(kvsift_store *store);

/* Flushes, joins the threads, closes the file, marks the handle dead. Tokens of a block not yet complete are not
 * kept. The store is closed even where the flush failed; the status says so. */
kvsift_status kvsift_store_close(kvsift_store *store);

/* ---- a step ---- */

/* Adds tokens [first_token, first_token + tokens) of `layer`, all KV heads, as views indexed from 0; they must follow on.
 * Completed blocks are written in the background, in order. Waits only where every slot of the layer holds a block
 * whose write is under way (a long prompt outruns the disk). While writes fail no new
 * block is begun: IO, until a flush has written what waits. Where it fails, tokens before the failure are kept
 * (kvsift_store_layer_tokens). INVALID_ARGUMENT, MISALIGNED (rows, strides), OUT_OF_ORDER, CAPACITY (max_tokens, or no slot that
 * could be taken), NOT_FINITE (I8 storage), IO. */
kvsift_status kvsift_store_append(kvsift_store *store, uint32_t layer, uint32_t first_token, uint32_t tokens,
                                  const kvsift_view *keys, const kvsift_view *values);

/* Starts fetching the blocks of `selection` that are not in fast memory and returns at once. `ticket` may be null. Only a
 * hint: resident blocks count as recently used; blocks for which no slot is free are skipped. Tokens past the end are
 * ignored. INVALID_ARGUMENT, INVALID_STRUCT_SIZE. */
kvsift_status kvsift_store_prefetch(kvsift_store *store, uint32_t layer, const kvsift_selection *selection,
                                    kvsift_ticket *ticket);

/* Waits for a prefetch; a later one of the same layer may be waited for with it. IO and CORRUPT where a block of this or an
 * earlier one could not be fetched and has not come since; that is said once (resolve will try again). */
kvsift_status kvsift_store_wait(kvsift_store *store, kvsift_ticket ticket);
kvsift_status kvsift_store_poll(kvsift_store *store, kvsift_ticket ticket, uint32_t *done);

/* Brings what is missing of `selection` into fast memory, and describes the layer's slots as a paged cache: a table for
 * each KV head, negative where a block is not resident. The cache may be attended to with this selection until the
 * next append, prefetch, resolve, read or truncate of the layer. cache->struct_size must be set.
 * With a late cap, blocks that are not there in time are taken out of the selection: its ranges and blocks (not `missed`)
 * then belong to the store, hold until the next resolve, of any layer, and a tail stands for what is missing. A list of which
 * nothing came in time is empty, which kvsift_attend refuses: a copy made before may be resolved again.
 * INVALID_ARGUMENT, INVALID_STRUCT_SIZE. OUT_OF_ORDER: the selection has more tokens than the layer (append comes first).
 * CAPACITY: the selection, with the pinned tokens, has more blocks than the layer has slots (attend in parts and merge, or
 * raise fast_blocks or resident_layers), or a list more entries than max_ranges. UNSUPPORTED: a coreset
 * (KVSIFT_TAIL_BALANCE), whose rows lie all over the cache. IO, CORRUPT. */
kvsift_status kvsift_store_resolve(kvsift_store *store, uint32_t layer, kvsift_selection *selection,
                                   kvsift_cache *cache);

/* Copies tokens [first_token, first_token + tokens) of one KV head to keys and values, [tokens][head_dim] of `storage`, and
 * for I8 their scales. For prompts in parts, calibrations, and building a policy's state after open. INVALID_ARGUMENT,
 * CAPACITY (no slot that could be taken), CORRUPT, IO. */
kvsift_status kvsift_store_read(kvsift_store *store, uint32_t layer, uint32_t kv_head, uint32_t first_token,
                                uint32_t tokens, void *keys, void *values, float *key_scales, float *value_scales);

/* Forgets tokens from `tokens` on, in every layer that has more. Within a block that block is fetched: CAPACITY, CORRUPT, IO,
 * and nothing is forgotten. */
kvsift_status kvsift_store_truncate(kvsift_store *store, uint32_t tokens);

/* ---- figures ---- */

typedef struct kvsift_store_info {
  uint32_t struct_size;
  uint32_t tokens;              /* in all layers */
  uint32_t durable_tokens;      /* completed and written: what open would find if the process died now */
  uint32_t block_tokens;
  uint32_t slots;               /* of a layer that is not resident */
  uint32_t io;                  /* KVSIFT_STORE_IO_* in use */
  uint32_t direct;              /* 1: O_DIRECT in use */
  uint32_t reserved;
  uint64_t slot_bytes;          /* a record with its padding */
  uint64_t slow_bytes;
  uint64_t arena_bytes;
} kvsift_store_info;
kvsift_status kvsift_store_get_info(const kvsift_store *store, kvsift_store_info *info);
uint32_t kvsift_store_layer_tokens(const kvsift_store *store, uint32_t layer); /* 0 for a bad argument */

/* Counters since create. A block is counted once for each KV head and resolve, but in `dropped` for each list. What read and
 * truncate fetch counts as a resolve's does. */
typedef struct kvsift_store_stats {
  uint32_t struct_size;
  uint32_t reserved;
  uint64_t bytes_read;          /* slow to fast, padding included */
  uint64_t bytes_written;
  uint64_t reads;               /* transfers; adjacent blocks of a head go in one */
  uint64_t writes;
  uint64_t hits;                /* resident from an earlier step */
  uint64_t prefetched;          /* first use of a block that a prefetch brought or has on the way */
  uint64_t late;                /* fetched by resolve */
  uint64_t dropped;             /* left out for a late cap, on their way or not */
  uint64_t blocks_prefetched;   /* fetched by prefetch, or behind a late cap, used or not */
  uint64_t prefetch_unplaced;   /* left out of a prefetch for want of a slot */
  uint64_t evictions;
  uint64_t slot_waits;          /* waits for a slot: writes did not keep up */
  uint64_t io_errors;
  uint64_t corrupt_records;
  uint64_t waited_ns;           /* timing: resolve and wait stood still; */
  uint64_t read_ns;             /*   a read was under way. Overlap achieved = 1 - waited_ns / read_ns */
} kvsift_store_stats;
kvsift_status kvsift_store_get_stats(kvsift_store *store, kvsift_store_stats *stats);

/* Trace. Times are of CLOCK_MONOTONIC. */
enum {
  KVSIFT_STORE_EVENT_READ = 0,      /* a transfer, from the worker's taking it up to its end */
  KVSIFT_STORE_EVENT_WRITE = 1,
  KVSIFT_STORE_EVENT_COMMIT = 2,    /* the entry that completes a block */
  KVSIFT_STORE_EVENT_PREFETCH = 3,  /* calls; `blocks` are those fetched */
  KVSIFT_STORE_EVENT_RESOLVE = 4,
  KVSIFT_STORE_EVENT_WAIT = 5,      /* the part of a call that stood still */
  KVSIFT_STORE_EVENT_APPEND = 6
};
typedef struct kvsift_store_event {
  uint64_t begin_ns, end_ns;
  uint32_t kind;
  uint32_t thread;              /* 0: the caller's; workers from 1 */
  uint32_t layer;
  uint32_t kv_head;
  uint32_t block;               /* the first */
  uint32_t blocks;
} kvsift_store_event;
/* Moves up to `capacity` events, oldest first, out of the ring; the ring drops the oldest when it is full. */
kvsift_status kvsift_store_read_trace(kvsift_store *store, kvsift_store_event *events, uint32_t capacity,
                                      uint32_t *count);

const char *kvsift_store_last_error(const kvsift_store *store); /* "" where none; holds until the next failure */

#ifdef __GNUC__
#pragma GCC visibility pop
#endif
#ifdef __cplusplus
}
#endif

#endif

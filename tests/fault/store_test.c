/* What goes wrong with slow tiers: no wrong row is ever given out, completed blocks are there, and the sentence names the
 * place. */
#include "fake_device.h"
#include "random.h"
#include "store_fixture.h"

#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

static fake_device device;
static kvsift_store_device calls;

static void custom_device(fixture *f) {
  uint64_t slow = 0;
  assert_int_equal(kvsift_store_slow_size(&f->config, &slow), KVSIFT_INVALID_ARGUMENT); /* no device yet */
  calls = fake_calls(&device);
  f->config.device = &calls;
  assert_int_equal(kvsift_store_slow_size(&f->config, &slow), KVSIFT_OK);
  fake_open(&device, slow);
}

static void custom(fixture *f) {
  fixture_config(f, KVSIFT_STORE_CUSTOM);
  custom_device(f);
}

static void end(fixture *f) {
  fixture_end(f);
  fake_close(&device);
}

static void expect_text(const char *message, const char *part) {
  if (strstr(message, part) == NULL) fail_msg("no \"%s\" in \"%s\"", part, message);
}

static void await_errors(const fixture *f, uint64_t count) {
  for (int ms = 0; fixture_stats(f).io_errors < count; ++ms) {
    if (ms == 10000) fail_msg("waited in vain for %u I/O errors", (unsigned)count);
    fake_sleep_until(fake_now() + 1000000);
  }
}

static void await_ticket(const fixture *f, kvsift_ticket ticket) {
  uint32_t done = 0;
  while (kvsift_store_poll(f->store, ticket, &done) == KVSIFT_OK && done == 0) fake_sleep_until(fake_now() + 1000000);
}

static uint64_t bytes_read(const fixture *f) { return fixture_stats(f).bytes_read; }

/* Every transfer comes in dribs and drabs. */
static void test_short_transfers(void **state) {
  (void)state;
  for (uint64_t most = 1; most < 300; most = most * 7 + 2) {
    fixture f;
    custom(&f);
    device.most = most;
    fixture_create(&f);
    fixture_append(&f, 0, 256);
    check_everything(&f, 256);
    fixture_reopen(&f);
    assert_int_equal(fixture_info(&f).tokens, 256);
    check_everything(&f, 256);
    assert_true(bytes_read(&f) > 0);
    end(&f);
  }
}

static void test_read_error(void **state) {
  (void)state;
  fixture f;
  fixture_lists s;
  kvsift_ticket ticket;
  custom(&f);
  fixture_create(&f);
  fixture_append(&f, 0, 256);
  assert_int_equal(kvsift_store_flush(f.store), KVSIFT_OK);
  lists_init(&s, &f, 256, 0);
  lists_add_all(&s, 40, 60);
  fake_break(&device, EIO, 0, 1);
  assert_int_equal(fixture_resolve(&f, 0, &s), KVSIFT_IO);
  expect_text(kvsift_store_last_error(f.store), "device: read at offset ");
  expect_text(kvsift_store_last_error(f.store), "input/output error (errno 5)");
  assert_int_equal(kvsift_store_prefetch(f.store, 0, &s.selection, &ticket), KVSIFT_OK);
  assert_int_equal(kvsift_store_wait(f.store, ticket), KVSIFT_IO);
  fake_break(&device, 0, 0, 0);
  assert_int_equal(fixture_resolve(&f, 0, &s), KVSIFT_OK);
  assert_true(fixture_stats(&f).io_errors >= 2);
  /* Failed once ahead of use, and well when resolve tries again. */
  lists_init(&s, &f, 256, 0);
  lists_add_all(&s, 100, 120);
  fake_break(&device, EIO, 0, 0);
  assert_int_equal(kvsift_store_prefetch(f.store, 0, &s.selection, &ticket), KVSIFT_OK);
  fake_sleep_until(fake_now() + 20000000);
  fake_break(&device, 0, 0, 0);
  assert_int_equal(fixture_resolve(&f, 0, &s), KVSIFT_OK);
  check_everything(&f, 256);
  end(&f);
}

/* Blocks that were asked for while reads failed, and never again, keep no slots. */
static void test_slots_of_failed_reads(void **state) {
  (void)state;
  fixture f;
  fixture_lists s;
  kvsift_ticket ticket;
  custom(&f);
  fixture_create(&f);
  fixture_append(&f, 0, 252);
  assert_int_equal(kvsift_store_flush(f.store), KVSIFT_OK);
  fake_break(&device, EIO, 0, 0);
  lists_init(&s, &f, 252, 0);
  lists_add_all(&s, 20, 140);
  assert_int_equal(kvsift_store_prefetch(f.store, 0, &s.selection, &ticket), KVSIFT_OK);
  await_ticket(&f, ticket);
  fake_break(&device, 0, 0, 0);
  lists_init(&s, &f, 252, 0);
  lists_add_all(&s, 140, 160);
  assert_int_equal(fixture_resolve(&f, 0, &s), KVSIFT_OK);
  fixture_append(&f, 252, 4);
  check_everything(&f, 256);
  end(&f);
}

/* What failed, and came when resolve tried again, is no failure of the next prefetch; what did not come is one, once. */
static void test_wait_after_failures(void **state) {
  (void)state;
  fixture f;
  fixture_lists s;
  kvsift_ticket first, second;
  custom(&f);
  fixture_create(&f);
  fixture_append(&f, 0, 256);
  assert_int_equal(kvsift_store_flush(f.store), KVSIFT_OK);
  for (int resolved = 0; resolved < 2; ++resolved) {
    fake_break(&device, EIO, 0, 0);
    lists_init(&s, &f, 256, 0);
    lists_add_all(&s, 20, 40);
    assert_int_equal(kvsift_store_prefetch(f.store, 0, &s.selection, &first), KVSIFT_OK);
    await_ticket(&f, first);
    fake_break(&device, 0, 0, 0);
    if (resolved) assert_int_equal(fixture_resolve(&f, 0, &s), KVSIFT_OK);
    lists_init(&s, &f, 256, 0);
    lists_add_all(&s, resolved ? 120 : 80, resolved ? 128 : 88);
    assert_int_equal(kvsift_store_prefetch(f.store, 0, &s.selection, &second), KVSIFT_OK);
    assert_int_equal(kvsift_store_wait(f.store, first), resolved ? KVSIFT_OK : KVSIFT_IO);
    assert_int_equal(kvsift_store_wait(f.store, second), KVSIFT_OK);
  }
  check_everything(&f, 256);
  end(&f);
}

/* The disk is full for a while: appending stops, what is there can be read, and a later flush writes it all. */
static void test_full_disk(void **state) {
  (void)state;
  fixture f;
  custom(&f);
  fixture_create(&f);
  fixture_append(&f, 0, 20);
  assert_int_equal(kvsift_store_flush(f.store), KVSIFT_OK);
  assert_int_equal(fixture_info(&f).durable_tokens, 20);
  fake_break(&device, 0, ENOSPC, 3);
  uint32_t tokens = 20;
  kvsift_status status = KVSIFT_OK;
  while (tokens < 256 && status == KVSIFT_OK) {
    for (uint32_t l = 0; l < f.config.layers && status == KVSIFT_OK; ++l) {
      if (kvsift_store_layer_tokens(f.store, l) == tokens) status = fixture_append_layer(&f, l, tokens, 1);
    }
    if (status == KVSIFT_OK) ++tokens;
    fake_sleep_until(fake_now() + 1000000);
  }
  assert_int_equal(status, KVSIFT_IO);
  if (tokens < 24 || tokens > 48) fail_msg("stopped at %u tokens", tokens);
  expect_text(kvsift_store_last_error(f.store), "write at offset ");
  expect_text(kvsift_store_last_error(f.store), "no space left (errno 28)");
  assert_int_equal(kvsift_store_flush(f.store), KVSIFT_IO);
  assert_true(fixture_info(&f).durable_tokens <= 24);
  check_everything(&f, tokens);
  fake_break(&device, 0, 0, 0);
  assert_int_equal(kvsift_store_flush(f.store), KVSIFT_OK);
  assert_int_equal(fixture_info(&f).durable_tokens, tokens / 4 * 4);
  for (uint32_t l = 0; l < f.config.layers; ++l) {
    if (kvsift_store_layer_tokens(f.store, l) == tokens) fixture_append_layer(&f, l, tokens, 1);
  }
  fixture_append(&f, tokens + 1, 255 - tokens);
  check_everything(&f, 256);
  fixture_reopen(&f);
  assert_int_equal(fixture_info(&f).tokens, 256);
  check_everything(&f, 256);
  end(&f);
}

/* One write fails while flush waits for it, or close: it is tried once more. */
static void test_failure_in_flush(void **state) {
  (void)state;
  for (int closing = 0; closing < 2; ++closing) {
    fixture f;
    custom(&f);
    fixture_create(&f);
    device.bandwidth = 1u << 30;
    device.latency_ns = 50000000;
    device.write_errno = EIO;
    device.failures = 1;
    fixture_append(&f, 0, 4);
    if (!closing) assert_int_equal(kvsift_store_flush(f.store), KVSIFT_OK);
    fixture_reopen(&f);
    assert_int_equal(fixture_info(&f).tokens, 4);
    check_everything(&f, 4);
    end(&f);
  }
}

/* Two writes fail: the first at once, the second as flush begins, after so many turns. */
static _Atomic int failed_writes, flush_begins;
static int turns;

static int64_t fail_twice(void *context, uint64_t offset, const kvsift_store_span *spans, uint32_t count) {
  const int before = failed_writes++;
  if (before > 1) return fake_write(context, offset, spans, count);
  while (before == 1 && !flush_begins) continue;
  for (volatile int i = 0; before == 1 && i < turns; ++i) continue;
  return -EIO;
}

/* Whenever that is, flush writes both. Many slots, so that looking at them takes a while. */
static void test_failure_as_flush_begins(void **state) {
  (void)state;
  for (int run = 0; run < 60; ++run) {
    fixture f;
    fixture_config(&f, KVSIFT_STORE_CUSTOM);
    f.config.layers = f.config.head_dim = 1;
    f.config.max_tokens = 1u << 17;
    f.config.fast_blocks = 1u << 15;
    custom_device(&f);
    calls.write = fail_twice;
    failed_writes = 2;
    fixture_create(&f);
    failed_writes = flush_begins = 0;
    turns = run % 20 * 2000;
    fixture_append(&f, 0, 4);
    await_errors(&f, 1);
    flush_begins = 1;
    assert_int_equal(kvsift_store_flush(f.store), KVSIFT_OK);
    assert_int_equal(fixture_info(&f).durable_tokens, 4);
    fixture_append(&f, 4, 4);
    end(&f);
  }
}

/* Failed writes hold all slots but one: truncating into an old block, of two heads, finds no room, and changes nothing. */
static void test_truncate_without_room(void **state) {
  (void)state;
  fixture f;
  custom(&f);
  f.config.layers = 1;
  f.config.sink_tokens = f.config.local_tokens = 0;
  f.config.fast_blocks = 2;
  fixture_create(&f);
  fixture_append(&f, 0, 40);
  assert_int_equal(kvsift_store_flush(f.store), KVSIFT_OK);
  device.bandwidth = 1u << 30;
  device.latency_ns = 50000000; /* both blocks are appended before the first write has failed */
  fake_break(&device, 0, ENOSPC, 1);
  fixture_append(&f, 40, 8);
  await_errors(&f, 3);
  fake_break(&device, 0, 0, 0);
  assert_int_equal(kvsift_store_truncate(f.store, 14), KVSIFT_IO);
  expect_text(kvsift_store_last_error(f.store), "no space left (errno 28)");
  assert_int_equal(fixture_info(&f).tokens, 48);
  assert_int_equal(kvsift_store_flush(f.store), KVSIFT_OK);
  check_everything(&f, 48);
  assert_int_equal(kvsift_store_truncate(f.store, 14), KVSIFT_OK);
  check_everything(&f, 14);
  fixture_append(&f, 14, 34);
  check_everything(&f, 48);
  end(&f);
}

/* How writes of entries fail: their first half is done, or all of it. */
enum { WELL, TORN, DONE };
static _Atomic int entries;

static int64_t write_entry(void *context, uint64_t offset, const kvsift_store_span *spans, uint32_t count) {
  const kvsift_store_span half = {spans[0].data, spans[0].bytes / 2};
  const int how = offset >= 128 && offset < 128 + 64 * 64 ? entries : WELL;
  const int64_t done = fake_write(context, offset, how == TORN ? &half : spans, count);
  return how == WELL ? done : -EIO;
}

static void custom_entries(fixture *f) {
  custom(f);
  calls.write = write_entry;
  entries = WELL;
}

/* Truncating damages an entry, and fails: all is there still, and durable when a flush says so. */
static void test_torn_truncate(void **state) {
  (void)state;
  for (int reopened = 0; reopened < 2; ++reopened) {
    fixture f;
    custom_entries(&f);
    fixture_create(&f);
    fixture_append(&f, 0, 64);
    assert_int_equal(kvsift_store_flush(f.store), KVSIFT_OK);
    if (reopened) fixture_reopen(&f);
    entries = TORN;
    assert_int_equal(kvsift_store_truncate(f.store, 32), KVSIFT_IO);
    await_errors(&f, 1);
    assert_int_equal(fixture_info(&f).tokens, 64);
    assert_int_equal(fixture_info(&f).durable_tokens, 32);
    entries = WELL;
    assert_int_equal(kvsift_store_flush(f.store), KVSIFT_OK);
    assert_int_equal(fixture_info(&f).durable_tokens, 64);
    fixture_reopen(&f);
    assert_int_equal(fixture_info(&f).tokens, 64);
    check_everything(&f, 64);
    end(&f);
  }
}

/* An entry is there though its write, or that of zeros over it, failed: what truncate forgets does not come back. */
static void test_truncate_after_failures(void **state) {
  (void)state;
  for (int erasing = 0; erasing < 2; ++erasing) {
    fixture f;
    custom_entries(&f);
    fixture_create(&f);
    fixture_append(&f, 0, 32);
    assert_int_equal(kvsift_store_flush(f.store), KVSIFT_OK);
    entries = erasing ? WELL : DONE;
    fixture_append(&f, 32, 4);
    assert_int_equal(kvsift_store_flush(f.store), erasing ? KVSIFT_OK : KVSIFT_IO);
    entries = WELL;
    if (erasing) {
      fake_break(&device, 0, EIO, 0);
      assert_int_equal(kvsift_store_truncate(f.store, 32), KVSIFT_IO);
      await_errors(&f, 1);
      fake_break(&device, 0, 0, 0);
    }
    assert_int_equal(kvsift_store_truncate(f.store, 32), KVSIFT_OK);
    fixture_reopen(&f);
    assert_int_equal(fixture_info(&f).tokens, 32);
    end(&f);
  }
}

/* A device that says it did more than it was asked to. */
static int64_t boast(void *context, uint64_t offset, const kvsift_store_span *spans, uint32_t count) {
  const int64_t done = fake_read(context, offset, spans, count);
  return offset > 30000 ? done + 1 : done;
}

static void test_lying_device(void **state) {
  (void)state;
  fixture f;
  fixture_lists s;
  custom(&f);
  calls.read = boast;
  fixture_create(&f);
  fixture_append(&f, 0, 256);
  lists_init(&s, &f, 256, 0);
  lists_add_all(&s, 100, 110);
  assert_int_equal(fixture_resolve(&f, 1, &s), KVSIFT_IO);
  end(&f);
}

/* Negative numbers that are no errno, with nothing in their low half for example. */
static int64_t odd;
static int64_t odd_transfer(void *context, uint64_t offset, const kvsift_store_span *spans, uint32_t count) {
  (void)context, (void)offset, (void)spans, (void)count;
  return odd;
}
static int32_t odd_sync(void *context) {
  (void)context;
  return INT32_MIN;
}

static void test_odd_errors(void **state) {
  (void)state;
  const int64_t results[] = {INT64_MIN, -(INT64_C(1) << 32), -4096};
  for (size_t i = 0; i < sizeof results / sizeof *results; ++i) {
    fixture f;
    custom(&f);
    odd = results[i];
    calls.write = odd_transfer;
    fixture_arena(&f);
    assert_int_equal(kvsift_store_create(&f.config, f.arena, f.arena_bytes, &f.store), KVSIFT_IO);
    expect_text(f.error.message, "write at offset 0: input/output error (errno 5)");
    free(f.arena);
    calls = fake_calls(&device);
    calls.sync = odd_sync;
    fixture_create(&f);
    assert_int_equal(kvsift_store_flush(f.store), KVSIFT_IO);
    expect_text(kvsift_store_last_error(f.store), "sync: input/output error (errno 5)");
    end(&f);
  }
}

/* In a child, since the limit holds for the process: the file cannot be made, or cannot grow as far as it must. */
static void test_no_room_for_the_file(void **state) {
  (void)state;
  const pid_t child = fork();
  if (child == 0) {
    fixture f;
    const struct rlimit limit = {65536, 65536};
    fixture_config(&f, KVSIFT_STORE_FILE);
    fixture_arena(&f);
    signal(SIGXFSZ, SIG_IGN);
    if (setrlimit(RLIMIT_FSIZE, &limit) != 0) _exit(2);
    const kvsift_status status = kvsift_store_create(&f.config, f.arena, f.arena_bytes, &f.store);
    unlink(f.path);
    _exit(status == KVSIFT_IO && strstr(f.error.message, f.path) != NULL ? 0 : 1);
  }
  int status = 0;
  assert_int_equal(waitpid(child, &status, 0), child);
  assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

/* From now on the kernel refuses io_uring_enter to all threads. */
static int forbid_io_uring(void) {
  struct sock_filter steps[] = {BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
                                BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_io_uring_enter, 0, 1),
                                BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
                                BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)};
  const struct sock_fprog program = {sizeof steps / sizeof *steps, steps};
  return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
         syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &program) == 0;
}

enum { SKIPPED = 77 };

static int without_io_uring(void) {
  fixture f;
  fixture_lists s;
  fixture_config(&f, KVSIFT_STORE_FILE);
  fixture_create(&f);
  fixture_append(&f, 0, 128);
  if (fixture_info(&f).io != KVSIFT_STORE_IO_URING || !forbid_io_uring()) {
    fixture_end(&f);
    return SKIPPED;
  }
  alarm(20);
  lists_init(&s, &f, 128, 0);
  lists_add_all(&s, 20, 40);
  if (fixture_resolve(&f, 0, &s) != KVSIFT_OK) return 1;
  fixture_append(&f, 128, 64);
  if (kvsift_store_flush(f.store) != KVSIFT_OK || fixture_info(&f).durable_tokens != 192) return 2;
  check_everything(&f, 192);
  fixture_end(&f);
  return 0;
}

/* A process locks itself in after create: the store goes on with plain reads and writes. In a child, as above. */
static void test_io_uring_refused(void **state) {
  (void)state;
  const pid_t child = fork();
  if (child == 0) _exit(without_io_uring());
  int status = 0;
  assert_int_equal(waitpid(child, &status, 0), child);
  assert_true(WIFEXITED(status));
  if (WEXITSTATUS(status) == SKIPPED) print_message("skipped: no io_uring here, or no seccomp\n");
  else assert_int_equal(WEXITSTATUS(status), 0);
}

/* Stands for the C library's. */
static int synced_folders;
int fsync(int fd) {
  struct stat info;
  if (fstat(fd, &info) == 0 && S_ISDIR(info.st_mode)) ++synced_folders;
  return 0;
}

/* A file that was made just now is there after a power cut only if its folder was written too. */
static void test_new_name(void **state) {
  (void)state;
  fixture f;
  fixture_config(&f, KVSIFT_STORE_FILE);
  unlink(f.path);
  synced_folders = 0;
  fixture_create(&f);
  assert_int_equal(synced_folders, 1);
  fixture_reopen(&f);
  assert_int_equal(synced_folders, 1);
  fixture_end(&f);
  /* A name without a folder, which the current one stands for. */
  fixture_config(&f, KVSIFT_STORE_FILE);
  char *const before = getcwd(NULL, 0), *const name = strrchr(f.path, '/');
  *name = '\0';
  assert_int_equal(chdir(f.path), 0);
  *name = '/';
  f.config.path = name + 1;
  fixture_create(&f);
  assert_int_equal(synced_folders, 2);
  fixture_end(&f);
  assert_int_equal(chdir(before), 0);
  free(before);
}

static void test_bad_paths(void **state) {
  (void)state;
  fixture f;
  fixture_config(&f, KVSIFT_STORE_FILE);
  f.config.path = "/nonexistent/kvsift";
  fixture_arena(&f);
  assert_int_equal(kvsift_store_create(&f.config, f.arena, f.arena_bytes, &f.store), KVSIFT_IO);
  expect_text(f.error.message, "/nonexistent/kvsift: open: no such file or directory");
  f.config.path = "/tmp";
  assert_int_equal(kvsift_store_create(&f.config, f.arena, f.arena_bytes, &f.store), KVSIFT_IO);
  f.config.path = "/dev/null";
  assert_int_equal(kvsift_store_create(&f.config, f.arena, f.arena_bytes, &f.store), KVSIFT_INVALID_ARGUMENT);
  f.config.path = f.path;
  free(f.arena);
  fixture_create(&f);
  fixture second = f;
  second.arena = NULL;
  fixture_arena(&second);
  assert_int_equal(kvsift_store_open(&second.config, second.arena, second.arena_bytes, &second.store), KVSIFT_IO);
  expect_text(f.error.message, "in use by another store");
  free(second.arena);
  fixture_end(&f);
}

static void flip(const char *path, uint64_t offset, uint8_t bits) {
  uint8_t byte = 0;
  const int fd = open(path, O_RDWR);
  assert_true(fd >= 0);
  assert_int_equal(pread(fd, &byte, 1, (off_t)offset), 1);
  byte ^= bits;
  assert_int_equal(pwrite(fd, &byte, 1, (off_t)offset), 1);
  close(fd);
}

/* A small file that is quick to damage in many ways. */
static void small_file(fixture *f) {
  fixture_config(f, KVSIFT_STORE_FILE);
  f->config.alignment = 512;
  f->config.max_tokens = 64;
  f->config.fast_blocks = 8;
  fixture_create(f);
  fixture_append(f, 0, 64);
  assert_int_equal(kvsift_store_close(f->store), KVSIFT_OK);
  f->store = NULL;
}

/* One bit wrong anywhere: opening finds the blocks before it, or refuses; without verifying, the bad block is refused when it
 * is fetched. Never a wrong row. */
static void test_bit_errors(void **state) {
  (void)state;
  test_random random = {5};
  fixture f;
  small_file(&f);
  struct stat info;
  assert_int_equal(stat(f.path, &info), 0);
  uint32_t refused = 0, shorter = 0, late = 0, whole = 0;
  for (uint32_t run = 0; run < 160; ++run) {
    const uint64_t at = run < 60 ? random_below(&random, 512 * 17) : random_below(&random, (uint32_t)info.st_size);
    const uint8_t bit = (uint8_t)(1u << random_below(&random, 8));
    flip(f.path, at, bit);
    f.config.verify = run % 2;
    const kvsift_status opened = kvsift_store_open(&f.config, f.arena, f.arena_bytes, &f.store);
    if (opened != KVSIFT_OK) {
      ++refused;
      assert_true(opened == KVSIFT_CORRUPT || opened == KVSIFT_VERSION_MISMATCH);
      expect_text(f.error.message, f.path);
    } else {
      const uint32_t tokens = fixture_info(&f).tokens;
      uint16_t rows[2][16 * 64];
      for (uint32_t l = 0; l < 2; ++l) {
        for (uint32_t h = 0; h < 2; ++h) {
          const kvsift_status status = kvsift_store_read(f.store, l, h, 0, tokens, rows[0], rows[1], NULL, NULL);
          if (status != KVSIFT_OK) {
            assert_int_equal(status, KVSIFT_CORRUPT);
            assert_int_equal(f.config.verify, 0);
            expect_text(kvsift_store_last_error(f.store), "offset ");
            expect_text(kvsift_store_last_error(f.store), f.path);
            ++late;
            continue;
          }
          for (uint32_t i = 0; i < 2 * tokens * 16; ++i) {
            const uint32_t v = i / (tokens * 16), t = i / 16 % tokens;
            assert_int_equal(rows[v][t * 16 + i % 16], fixture_element(0, l, h, t, v, i % 16));
          }
        }
      }
      shorter += tokens < 64;
      whole += tokens == 64;
      assert_int_equal(tokens % 4, 0);
      kvsift_store_close(f.store);
      f.store = NULL;
    }
    /* Opening may have erased the entry of a block that did not hold: make the file anew. */
    fixture_end(&f);
    small_file(&f);
  }
  assert_true(refused > 0 && shorter > 0 && late > 0 && whole > 0);
  fixture_end(&f);
}

static void test_cut_file(void **state) {
  (void)state;
  test_random random = {7};
  for (uint32_t run = 0; run < 40; ++run) {
    fixture f;
    struct stat info;
    small_file(&f);
    assert_int_equal(stat(f.path, &info), 0);
    const uint32_t length = random_below(&random, run < 20 ? 512 * 18 : (uint32_t)info.st_size);
    assert_int_equal(truncate(f.path, (off_t)length), 0);
    const kvsift_status status = kvsift_store_open(&f.config, f.arena, f.arena_bytes, &f.store);
    if (length < 512) {
      assert_int_equal(status, KVSIFT_CORRUPT);
    } else {
      if (status != KVSIFT_OK) fail_msg("cut to %u: %s", length, f.error.message);
      const uint32_t tokens = fixture_info(&f).tokens;
      assert_true(tokens < 64);
      check_everything(&f, tokens);
      fixture_append(&f, tokens, 64 - tokens); /* and it can be filled again */
      fixture_reopen(&f);
      assert_int_equal(fixture_info(&f).tokens, 64);
      check_everything(&f, 64);
    }
    fixture_end(&f);
  }
}

/* A header of somebody's making, whose max_tokens ends within the last completed block. */
static void test_forged_header(void **state) {
  (void)state;
  fixture f;
  uint64_t words[9];
  custom(&f);
  fixture_create(&f);
  fixture_append(&f, 0, 256);
  assert_int_equal(kvsift_store_close(f.store), KVSIFT_OK);
  f.config.max_tokens = 254;
  memcpy(words, device.bytes, sizeof words);
  memcpy((uint32_t *)words + 9, &f.config.max_tokens, 4);
  words[8] = 0xcbf29ce484222325u;
  for (int i = 0; i < 8; ++i) {
    words[8] = (words[8] ^ words[i]) * 0x100000001b3u;
    words[8] ^= words[8] >> 32;
  }
  memcpy(device.bytes, words, sizeof words);
  assert_int_equal(kvsift_store_open(&f.config, f.arena, f.arena_bytes, &f.store), KVSIFT_OK);
  assert_int_equal(fixture_info(&f).tokens, 252);
  fixture_append(&f, 252, 2);
  assert_int_equal(fixture_append_layer(&f, 0, 254, 1), KVSIFT_CAPACITY);
  check_everything(&f, 254);
  end(&f);
}

/* What an older store left in the same file or memory is never taken for the new one's. */
static void test_old_content(void **state) {
  (void)state;
  fixture f;
  custom(&f);
  fixture_create(&f);
  fixture_append(&f, 0, 256);
  assert_int_equal(kvsift_store_close(f.store), KVSIFT_OK);
  f.generation = 1;
  assert_int_equal(kvsift_store_create(&f.config, f.arena, f.arena_bytes, &f.store), KVSIFT_OK);
  fixture_append(&f, 0, 32);
  fixture_reopen(&f);
  assert_int_equal(fixture_info(&f).tokens, 32);
  /* Back to 10 and on with other rows: the old 11 .. 32 must not come back, whatever of them is still on the device. */
  assert_int_equal(kvsift_store_truncate(f.store, 10), KVSIFT_OK);
  fixture_reopen(&f);
  assert_int_equal(fixture_info(&f).tokens, 8);
  check_everything(&f, 8);
  f.generation = 2;
  assert_int_equal(kvsift_store_truncate(f.store, 0), KVSIFT_OK);
  fixture_append(&f, 0, 16);
  fixture_reopen(&f);
  assert_int_equal(fixture_info(&f).tokens, 16);
  check_everything(&f, 16);
  end(&f);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_short_transfers), cmocka_unit_test(test_read_error),
      cmocka_unit_test(test_full_disk),       cmocka_unit_test(test_truncate_without_room),
      cmocka_unit_test(test_torn_truncate),   cmocka_unit_test(test_truncate_after_failures),
      cmocka_unit_test(test_lying_device),
      cmocka_unit_test(test_no_room_for_the_file), cmocka_unit_test(test_bad_paths),
      cmocka_unit_test(test_io_uring_refused),
      cmocka_unit_test(test_bit_errors),      cmocka_unit_test(test_cut_file),
      cmocka_unit_test(test_old_content), cmocka_unit_test(test_slots_of_failed_reads),
      cmocka_unit_test(test_wait_after_failures), cmocka_unit_test(test_failure_in_flush),
      cmocka_unit_test(test_failure_as_flush_begins), cmocka_unit_test(test_forged_header),
      cmocka_unit_test(test_odd_errors), cmocka_unit_test(test_new_name),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}

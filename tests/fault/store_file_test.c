/* Files that cannot be made, written the fast way, or trusted: opening finds the blocks before the damage, or refuses. */
#include "store_faults.h"
#include "random.h"

#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

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

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_no_room_for_the_file),
      cmocka_unit_test(test_io_uring_refused),
      cmocka_unit_test(test_new_name),
      cmocka_unit_test(test_bad_paths),
      cmocka_unit_test(test_bit_errors),
      cmocka_unit_test(test_cut_file),
      cmocka_unit_test(test_forged_header),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}

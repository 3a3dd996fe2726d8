#!/bin/sh
# A C program links the archive by cc, needs libc alone, and is told that there is no device where there is no driver.
# Usage: link_test.sh LIBRARY SOURCE_ROOT WORK_FOLDER
set -eu
library=$1
source=$2
work=$3
mkdir -p "$work"
cat >"$work/program.c" <<'C'
#include <kvsift/kvsift_cuda.h>
#include <stdio.h>
#include <stdlib.h>
int main(void) {
  static char memory[1 << 16] __attribute__((aligned(256)));
  kvsift_error error = {0, ""};
  kvsift_build_info info = {.struct_size = sizeof info};
  kvsift_policy_config config = {.struct_size = sizeof config};
  kvsift_cuda_sizes sizes = {.struct_size = sizeof sizes};
  kvsift_cuda_policy *policy = NULL;
  kvsift_get_build_info(&info);
  kvsift_policy_config_init(&config, KVSIFT_METHOD_QUEST);
  config.layers = 3;
  config.query_heads = config.kv_heads = 1;
  config.head_dim = 16;
  config.max_tokens = 64;
  config.error = &error;
  if (kvsift_cuda_policy_sizes(&config, &sizes) != KVSIFT_OK || sizes.host > sizeof memory) return 2;
  /* Never touched: there is no device. */
  const kvsift_cuda_arenas arenas = {sizeof arenas, 0, memory, sizes.device, memory, sizes.pinned, memory, sizes.host};
  const kvsift_status status = kvsift_cuda_policy_create(&config, &arenas, NULL, &policy);
  printf("cuda %u, status %d: %s\n", info.cuda, status, error.message);
  return info.cuda == 1 && status == KVSIFT_NO_DEVICE ? 0 : 1;
}
C
${CC:-cc} -std=c11 -Wall -Werror -I"$source/include" "$work/program.c" "$library" -lm -lpthread -o "$work/program"
if readelf --dynamic "$work/program" | grep NEEDED | grep -v 'libc\.so\|libm\.so\|ld-linux'; then
  echo "the program needs more than libc"
  exit 1
fi
KVSIFT_CUDA_DRIVER=/nonexistent/libcuda.so.1 "$work/program"

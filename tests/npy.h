/* Reads NumPy .npy files (versions 1 and 2, little-endian, C order) for tests. */
#ifndef KVSIFT_TESTS_NPY_H
#define KVSIFT_TESTS_NPY_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NPY_MAX_DIMS 6

typedef struct npy_array {
  char type[4]; /* without the byte order: "f4", "i4", "u1" */
  uint32_t dims;
  uint64_t shape[NPY_MAX_DIMS];
  uint64_t count;
  uint32_t item_bytes;
  void *data; /* malloc'd; null where the file was missing or wrong */
} npy_array;

static inline void npy_free(npy_array *a) {
  free(a->data);
  memset(a, 0, sizeof *a);
}

/* Fills type and shape from a header such as {'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }. */
static inline int npy_parse_header(const char *header, npy_array *a) {
  const char *descr = strstr(header, "'descr': '");
  const char *shape = strstr(header, "'shape': (");
  if (descr == NULL || shape == NULL || strstr(header, "'fortran_order': False") == NULL) return -1;
  descr += strlen("'descr': '");
  if (descr[0] == '>' || descr[0] == '\0') return -1;
  a->type[0] = descr[1];
  a->type[1] = descr[2];
  a->type[2] = '\0';
  if (a->type[1] < '1' || a->type[1] > '8') return -1;
  a->item_bytes = (uint32_t)(a->type[1] - '0');
  a->count = 1;
  const char *p = shape + strlen("'shape': (");
  while (*p != ')' && *p != '\0') {
    char *end = NULL;
    const uint64_t extent = strtoull(p, &end, 10);
    if (end == p || a->dims == NPY_MAX_DIMS) return -1;
    a->shape[a->dims++] = extent;
    a->count *= extent;
    p = end;
    while (*p == ',' || *p == ' ') ++p;
  }
  return 0;
}

/* 0, or -1 where the file is missing or is not such an array. */
static inline int npy_load(const char *path, npy_array *a) {
  unsigned char start[12];
  char *header = NULL;
  int result = -1;
  memset(a, 0, sizeof *a);
  FILE *file = fopen(path, "rb");
  if (file == NULL) return -1;
  if (fread(start, 1, 10, file) != 10 || memcmp(start, "\x93NUMPY", 6) != 0) goto out;
  size_t length = start[8] | (size_t)start[9] << 8;
  if (start[6] >= 2) {
    if (fread(start + 10, 1, 2, file) != 2) goto out;
    length |= (size_t)start[10] << 16 | (size_t)start[11] << 24;
  }
  header = calloc(length + 1, 1);
  if (header == NULL || fread(header, 1, length, file) != length) goto out;
  if (npy_parse_header(header, a) != 0) goto out;
  a->data = malloc((size_t)(a->count * a->item_bytes) + 1);
  if (a->data == NULL) goto out;
  if (fread(a->data, a->item_bytes, (size_t)a->count, file) != a->count) goto out;
  result = 0;
out:
  free(header);
  fclose(file);
  if (result != 0) npy_free(a);
  return result;
}

/* The file `name` of a case folder, as elements of `type`; null where it is missing or of another type. */
static inline void *npy_load_as(const char *folder, const char *name, const char *type,
                                npy_array *a) {
  char path[2048];
  memset(a, 0, sizeof *a);
  const int length = snprintf(path, sizeof path, "%s/%s.npy", folder, name);
  if (length < 0 || (size_t)length >= sizeof path || npy_load(path, a) != 0) return NULL;
  if (strcmp(a->type, type) != 0) npy_free(a);
  return a->data;
}

#endif

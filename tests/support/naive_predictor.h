/* The predictor's network as nested loops, in the order of operations that src/predictor/conv_kernels.h states. */
#ifndef KVSIFT_TESTS_NAIVE_PREDICTOR_H
#define KVSIFT_TESTS_NAIVE_PREDICTOR_H

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* Parameters in file order. */
typedef struct naive_net {
  const float *w1, *b1, *w2, *b2, *w3, *b3;
} naive_net;

static inline naive_net naive_net_of(const float *p) {
  const naive_net net = {p, p + 144, p + 160, p + 160 + 4608, p + 4800, p + 4832};
  return net;
}

static inline float naive_relu(float x) { return x > 0 ? x : 0; }

/* Middle channels of one place; rows above or below the window are left out, columns beside the crop are zeros. */
static inline void naive_middle(const naive_net *net, const float *in, int rows, int columns, int r, int j, float *out) {
  for (int c = 0; c < 16; ++c) {
    float sum = net->b1[c];
    for (int dy = 0; dy < 3; ++dy) {
      if (r + dy - 1 < 0 || r + dy - 1 >= rows) continue;
      for (int dx = 0; dx < 3; ++dx) {
        const int x = j + dx - 1;
        const float share = x < 0 || x >= columns ? 0 : in[(r + dy - 1) * columns + x];
        sum = fmaf(net->w1[c * 9 + 3 * dy + dx], share, sum);
      }
    }
    out[c] = naive_relu(sum);
  }
}

static inline float naive_deep(const naive_net *net, const float *middle, int rows, int columns, int r, int j, int o) {
  float sum = net->b2[o];
  for (int dy = 0; dy < 3; ++dy) {
    if (r + dy - 1 < 0 || r + dy - 1 >= rows) continue;
    for (int dx = 0; dx < 3; ++dx) {
      const int x = j + dx - 1;
      for (int c = 0; c < 16; ++c) {
        const float m = x < 0 || x >= columns ? 0 : middle[((r + dy - 1) * columns + x) * 16 + c];
        sum = fmaf(net->w2[(o * 16 + c) * 9 + 3 * dy + dx], m, sum);
      }
    }
  }
  return naive_relu(sum);
}

static inline float naive_place(const naive_net *net, const float *middle, int rows, int columns, int r, int j) {
  float lane[16];
  for (int c = 0; c < 16; ++c) {
    lane[c] = fmaf(naive_deep(net, middle, rows, columns, r, j, c), net->w3[c], 0.0f);
    lane[c] = fmaf(naive_deep(net, middle, rows, columns, r, j, c + 16), net->w3[c + 16], lane[c]);
  }
  for (int half = 8; half > 0; half /= 2) {
    for (int c = 0; c < half; ++c) lane[c] += lane[c + half];
  }
  return lane[0];
}

/* The same place with the second convolution in int8. */
static inline float naive_weight_code(const naive_net *net, int o, int c, int t, float most) {
  const float x = most > 0 ? net->w2[(o * 16 + c) * 9 + t] / most * 127 : 0;
  return x < 0 ? -(float)(int)(0.5f - x) : (float)(int)(x + 0.5f);
}

static inline float naive_coded_deep(const naive_net *net, const float *middle, int rows, int columns, int r, int j,
                                     int o, float size) {
  double base = net->b2[o];
  float most = 0, sum = 0;
  for (int i = 0; i < 144; ++i) most = fmaxf(most, fabsf(net->w2[o * 144 + i]));
  for (int t = 0; t < 9; ++t) {
    const int y = r + t / 3 - 1, x = j + t % 3 - 1;
    double tap = 0;
    if (y < 0 || y >= rows || x < 0 || x >= columns) continue;
    for (int c = 0; c < 16; ++c) {
      const float rest = middle[(y * columns + x) * 16 + c] - naive_relu(net->b1[c]);
      const float code = size > 0 ? fmaf(rest, 127.0f / size, 12582912.0f) - 12582912.0f : 0; /* rounded once */
      sum += code * naive_weight_code(net, o, c, t, most);
      tap += (double)net->w2[(o * 16 + c) * 9 + t] * (double)naive_relu(net->b1[c]);
    }
    base += tap;
  }
  return naive_relu(fmaf(sum, size / 127.0f * (most / 127), (float)base));
}

static inline float naive_coded_place(const naive_net *net, const float *middle, int rows, int columns, int r, int j) {
  float lane[16] = {0}, size = 0;
  for (int y = r - 1; y <= r + 1; ++y) {
    for (int x = j - 1; x <= j + 1; ++x) {
      if (y < 0 || y >= rows || x < 0 || x >= columns) continue;
      for (int c = 0; c < 16; ++c) {
        size = fmaxf(size, fabsf(middle[(y * columns + x) * 16 + c] - naive_relu(net->b1[c])));
      }
    }
  }
  for (int o = 0; o < 32; ++o) {
    lane[o % 16] = fmaf(naive_coded_deep(net, middle, rows, columns, r, j, o, size), net->w3[o], lane[o % 16]);
  }
  for (int half = 8; half > 0; half /= 2) {
    for (int c = 0; c < half; ++c) lane[c] += lane[c + half];
  }
  return lane[0];
}

static inline float naive_bfloat(float x) {
  uint32_t bits;
  memcpy(&bits, &x, sizeof bits);
  const uint32_t low = bits & 0xffff, odd = bits >> 16 & 1;
  bits -= low;
  if (low > 0x8000 || (low == 0x8000 && odd)) bits += 0x10000;
  memcpy(&x, &bits, sizeof bits);
  return x;
}

/* scores[columns] of a crop of `rows` by `columns` shares, oldest row first. Arithmetic 0: float32, 1: int8, 2: bf16. */
static inline void naive_scores(const float *parameters, const float *in, int rows, int columns, int arithmetic,
                                float *scores) {
  naive_net net = naive_net_of(parameters);
  float *middle = malloc(sizeof(float) * 16 * (size_t)rows * (size_t)columns);
  for (int r = 0; r < rows; ++r) {
    for (int j = 0; j < columns; ++j) {
      naive_middle(&net, in, rows, columns, r, j, middle + (r * columns + j) * 16);
    }
  }
  float rounded[4608];
  for (int i = 0; i < 4608; ++i) rounded[i] = naive_bfloat(net.w2[i]);
  for (int i = 0; arithmetic == 2 && i < 16 * rows * columns; ++i) middle[i] = naive_bfloat(middle[i]);
  if (arithmetic == 2) net.w2 = rounded;
  for (int j = 0; j < columns; ++j) {
    float sum = 0;
    for (int r = 0; r < rows; ++r) {
      sum += arithmetic == 1 ? naive_coded_place(&net, middle, rows, columns, r, j)
                             : naive_place(&net, middle, rows, columns, r, j);
    }
    scores[j] = fmaf(sum, 1.0f / (float)rows, net.b3[0]);
  }
  free(middle);
}

#endif

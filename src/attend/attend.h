// Attention of one KV head and its group of query heads, on plain structs: no policy, no heap,
// bounded stack.
//
// Kept tokens are taken in ascending order in chunks of 256 (counted in kept tokens). Each chunk
// gives maximum, sum and weighted values on its own; chunks are merged in order. Then comes the
// tail: pages in chunks of 256 neighbours, those with a kept token weighing nothing, or coreset
// tokens in chunks of 256 that count. A list that names every token is a list like any other.
#pragma once

#include <cstddef>
#include <cstdint>

#include "attend/chunk.h"
#include "attend/moments.h"
#include "core/view.h"
#include "kernels/kernels.h"
#include "kvsift/kvsift.h"

namespace kvsift {

// One KV head's keys and values, and the queries that look at them.
struct Head {
  const Kernels *kernels;
  const float *queries;  // [group][padded_dim(dim)], padding zero
  std::uint32_t group;
  std::uint32_t dim;
  float scale;  // of logits
  HeadRows keys, values;
};

struct List {
  const kvsift_range *ranges;
  std::uint32_t count;
};

// Kept tokens: one list for the group, or one for each query head, `stride` ranges apart.
struct Lists {
  const kvsift_range *ranges;
  const std::uint32_t *counts;
  std::uint32_t stride;
  bool per_query_head;

  List list(std::uint32_t g) const {
    if (!per_query_head) g = 0;
    return List{ranges + static_cast<std::size_t>(g) * stride, counts[g]};
  }
};

// What stands for the tokens left out.
struct Tail {
  std::uint32_t kind;  // KVSIFT_TAIL_*
  // Moments: pages no kept token lies in.
  const Moments *moments;
  const float *page_logits;  // [group][page_stride] from moment_logits for these queries; null:
                             // computed on the way
  std::size_t page_stride;
  // Balance: tokens ascending; those kept exactly are skipped.
  const std::uint32_t *coreset;
  const float *weights;
  std::uint32_t coreset_count;
};

// Shares of single tokens as one row of the whole group, whose heads have one list, at most
// kHeads of them.
struct JoinedShares {
  float *row;      // [blocks]; null: not wanted
  float *weights;  // room: [kept tokens], a chunk after the other, each [group][its tokens]
  bool largest;    // of the group, else the mean
  const float *sums;  // [blocks] that the row will be added to, asked for on the way; may be null
};

// Where results go; any pointer but `out` may be null.
struct Attended {
  float *out;          // [group][dim], null: not wanted
  float *log_sum_exp;  // [group], tail included
  float *block_max;  // [group][block_stride] largest logit of a block's kept tokens, minus infinity
                     // without one
  float *block_mass;  // [group][block_stride] share of the softmax (tail in the denominator) on a
                      // block's kept tokens
  std::uint64_t block_stride;
  std::uint32_t block_tokens;
  std::uint32_t blocks;  // entries of block_max and block_mass to fill
  JoinedShares joined;  // in place of block_mass
  float *chunk_max;  // room where shares of single tokens are wanted: [group][chunks()]

  std::uint32_t chunks() const { return (blocks + kChunk - 1) / kChunk; }
};

constexpr std::uint32_t kHeads = 8;  // query heads worked on at a time

// What is attended to after this, so that its first rows are on their way by then; an empty list: nothing.
struct Next {
  HeadRows keys;
  List list;
};

// Attention over the lists, and the tail.
void attend(const Head &head, const Lists &lists, const Tail &tail, const Attended &result,
            const Next &next);
inline void attend(const Head &head, const Lists &lists, const Tail &tail, const Attended &result) {
  attend(head, lists, tail, result, Next{head.keys, List{nullptr, 0}});
}

// The tail alone, to be merged with another kernel's attention: out and log_sum_exp of `result`,
// zeros and minus infinity where there is no tail.
void attend_tail(const Head &head, const Lists &lists, const Tail &tail, const Attended &result);

// The full row over tokens [0, tokens) without values: log_sum_exp, block_max, block_mass (out is
// not touched). Its figures are those of attend over everything. For calibration steps and for the
// prompt's last rows.
void attend_row(const Head &head, std::uint32_t tokens, const Attended &result);

// Tail logits of pages [first, first + count): scale * q.mean + log(1 + x/2) + log(tokens in page).
// peaks, which may be null: what the page's largest logit is likely to be, scale * q.mean +
// sqrt(2 x log(tokens)).
// Both [group][stride], entry 0 for page `first`.
void moment_logits(const Kernels &kernels, const float *queries, std::uint32_t group, float scale,
                   const Moments &moments, std::uint32_t first, std::uint32_t count, float *logits,
                   float *peaks, std::size_t stride);

// Likewise the page statistics scale * (q.mean + 0.5 * sum |q_c| deviation_c).
void moment_scores(const Kernels &kernels, const float *queries, std::uint32_t group, float scale,
                   const Moments &moments, std::uint32_t first, std::uint32_t count, float *scores,
                   std::size_t stride);

// a and b are outputs with log-sum-exps la and lb: a = (a e^la + b e^lb) / (e^la + e^lb), la =
// log(e^la + e^lb).
void merge_attention(std::uint32_t dim, float *a, float *la, const float *b, float lb);

}  // namespace kvsift

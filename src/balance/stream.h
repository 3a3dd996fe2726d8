// Merge and reduce (Algorithms 1 and 4 of BalanceKV) in one arena.
//
//     | Stream | moments 0 .. rollback + 1 | top list | rows: token, references, keys, values |
//     | free rows | room to halve |
//
// A moment is the trees' lists at one time: moment 0 is now, the others are batch boundaries to go
// back to. A tree has a list a level; entries name rows of the pool, which live as long as a list
// of any moment or a recent token names them. Everything is kept by offset, so that a stream can be
// copied. With a guard, the most unlike tokens so far are named by a list of their own, at weight
// 1: one that is crowded out is halved with the batch at hand.
#pragma once

#include "balance/halver.h"

namespace kvsift {

constexpr std::uint64_t kStreamAlive = 0x6b7673746d303031ull;

struct StreamEntry {
  std::uint32_t row;
  float weight;  // relative to 2^level; the guard's: how unlike, least first
};

struct StreamSettings {
  kvsift_balance_stream_config c;  // pointers nulled
  BalancePlan plan;
  std::uint32_t levels;       // lists 0 .. levels
  std::uint32_t trees;        // 1; theory: buckets, then the denominator's
  std::uint32_t top_entries;  // capacity of a top list
  std::uint32_t moments;      // with the present
  std::uint32_t guards;       // capacity of the guard's list; 0: no guard
  std::uint32_t rows;         // capacity of the pool
  std::uint32_t row_bytes;
  bool theory;

  // Entries of one moment: the theory's top lists belong to it, since a bucket can be dropped; else
  // a top list only grows, and all moments share it.
  std::uint64_t moment_entries() const {
    return std::uint64_t{trees} *
           (std::uint64_t{levels} * c.batch_tokens + (theory ? top_entries : 0));
  }
  std::uint32_t lists() const { return trees * (levels + 1); }
  std::uint32_t recent_tokens() const { return (moments - 1) * c.batch_tokens; }
};

kvsift_status settle_stream(const kvsift_balance_stream_config &config, StreamSettings *settings);

struct Moment {
  std::uint32_t tokens;
  std::uint32_t valid;
  std::int32_t top_bucket;  // theory: exponent of the largest values so far
  std::uint32_t any_bucket;
  std::uint32_t guards;  // guarded tokens
  std::uint32_t reserved;
  BalanceCounters counters;
};

struct StreamPlaces {
  Offset<Moment> moments;          // [moments]
  Offset<std::uint32_t> counts;    // [moments][lists]
  Offset<StreamEntry> entries;     // [moments][moment_entries]
  Offset<StreamEntry> top;         // [top_entries], where not of the theory
  Offset<StreamEntry> guards;      // [moments][guards]
  Offset<std::uint32_t> recent;    // [recent_tokens]: rows of the tokens since the oldest boundary
  Offset<std::uint32_t> token_of;  // [rows]
  std::uint64_t saved_begin, saved_end;  // what lies between is saved as it is
  Offset<std::uint32_t> references;      // [rows]
  Offset<std::uint32_t> free_rows;       // [rows]
  Offset<std::uint8_t> keys, values;
  Offset<std::uint32_t> order;  // [batch_tokens] a list while it is halved
  Offset<float> weight;
  Offset<std::uint32_t> read_rows;  // numerator, then denominator
  Offset<float> read_weights;
  Offset<float> wide;  // [padded dim] one row
  Offset<StreamEntry> candidates;  // [guards + batch_tokens]
  Offset<std::int8_t> marks;       // [batch_tokens]
  HalverPlaces halver;
};

struct Stream {
  std::uint64_t alive;
  std::uint64_t bytes;
  StreamSettings s;
  StreamPlaces places;
  Level level;
  std::uint32_t free_count;
  kvsift_view key_view, value_view;  // data is set for the length of a call
  kvsift_error error;

  template <class T>
  T *at(const Offset<T> &place) const {
    return place.in(const_cast<Stream *>(this));
  }
  Moment &moment(std::uint32_t m) const { return at(places.moments)[m]; }
  std::uint32_t &count(std::uint32_t m, std::uint32_t tree, std::uint32_t list_level) const {
    return at(places.counts)[m * s.lists() + tree * (s.levels + 1) + list_level];
  }
  StreamEntry *list(std::uint32_t m, std::uint32_t tree, std::uint32_t list_level) const {
    if (list_level == s.levels && !s.theory) return at(places.top);
    const std::uint64_t of_tree = s.moment_entries() / s.trees;
    return at(places.entries) + m * s.moment_entries() + tree * of_tree +
           std::uint64_t{list_level} * s.c.batch_tokens;
  }
  StreamEntry *guard_list(std::uint32_t m) const {
    return at(places.guards) + std::uint64_t{m} * s.guards;
  }
  // Whether moments have this list to themselves.
  bool owns(std::uint32_t list_level) const { return s.theory || list_level < s.levels; }
  const Kernels &k() const { return *kernels(level); }
};

StreamPlaces lay_out_stream(Layout *layout, const StreamSettings &settings);
void start_stream(Stream *stream);

// Keys and values of token i of the head, appended. The caller has checked them and the capacity.
void push_token(Stream *stream, const Rows &key, const Rows &value);

// Exact within the boundaries that are kept; false: out of reach.
bool truncate_stream(Stream *stream, std::uint32_t tokens);

// The lists of the present as two weighted sets of rows.
void read_stream(Stream *stream, kvsift_weighted *numerator, kvsift_weighted *denominator);

std::uint64_t snapshot_bytes(const Stream *stream);
void save_stream(const Stream *stream, std::uint8_t *out);
kvsift_status load_stream(Stream *stream, const std::uint8_t *data, std::uint64_t bytes);

// stream_rows.cpp
std::uint32_t take_row(Stream *stream);
void hold_row(Stream *stream, std::uint32_t row);
void release_row(Stream *stream, std::uint32_t row);
void hold_lists(Stream *stream, std::uint32_t m);
void release_lists(Stream *stream, std::uint32_t m);
void count_references(Stream *stream);  // anew, from lists and recent tokens

// stream_guard.cpp: before level 0 is halved, tokens are exchanged between it and the guard's list.
void guard_batch(Stream *stream);

// stream_tree.cpp
void insert_row(Stream *stream, std::uint32_t row);
// stream_moments.cpp
void keep_boundary(Stream *stream);

}  // namespace kvsift

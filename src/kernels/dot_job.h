// Queries that rows are multiplied with, and the rows that are asked for meanwhile.
#pragma once

#include "kernels/places.h"

namespace kvsift {
namespace {

// How rows are multiplied: Cut where dim is no multiple of 16, Squared with their elements' squares.
enum class Form { kWhole, kCut, kSquared };

template <class Query>
struct RowJob {
  const Query *queries;
  std::uint32_t dim, dim16;
  float *logits;
  std::size_t stride;
  Ahead ahead;         // asked for while the rows are multiplied: with row i
  std::uint32_t lead;  //   row i + lead
};
using DotJob = RowJob<float>;

// Whether all of the rows that come with N rows from i can be asked for a line at a time; if not, those that come are asked
// for here.
template <std::uint32_t N, class Query>
bool asks_by_lines(const RowJob<Query> &job, const Rows &rows, std::uint32_t i) {
  const std::uint32_t first = i + job.lead;
  const bool listed = rows.list != nullptr, ahead_listed = job.ahead.rows.list != nullptr;
  if (first + N <= job.ahead.count && job.ahead.rows.type == rows.type && listed == ahead_listed) return true;
  for (std::uint32_t n = 0; n < N; ++n) ask_for(job.ahead, first + n);
  return false;
}

}  // namespace
}  // namespace kvsift

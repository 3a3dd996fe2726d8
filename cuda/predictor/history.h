// Rows enter histories and leave them again.
#pragma once

#include "cuda/predictor/histories.h"

namespace kvsift {

// Rows of `rows` queries in order, the last of which has a cache of `tokens` tokens, the one before one token less.
struct HistoryAppendArgs {
  Histories histories;
  const float *peak;           // [rows][heads][lists], each of its query's blocks
  std::uint64_t row_stride, head_stride, list_stride;
  std::uint32_t rows, tokens;
  const std::uint32_t *tokens_now;  // if not null: what `tokens` is to be added to
  std::uint32_t prompt;        // they are the prompt's
  std::uint32_t learns_from;   // rows of decode steps over fewer tokens are passed over
};

// Takes back the rows of queries that saw more than `tokens` tokens.
struct HistoryTruncateArgs {
  Histories histories;
  std::uint32_t tokens;
};

}  // namespace kvsift

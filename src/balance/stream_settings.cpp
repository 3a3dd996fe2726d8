// A stream's configuration, checked, and its arena.
#include "balance/stream.h"

namespace kvsift {

namespace {

constexpr std::uint32_t kMostRollback = 8;

kvsift_status check_stream(const kvsift_balance_stream_config &c) {
  kvsift_error *error = c.balance.error;
  const std::uint32_t t = c.batch_tokens;
  if (t < KVSIFT_BALANCE_MIN_GROUP || t > KVSIFT_BALANCE_MAX_BATCH || t % 2 != 0) {
    return fail(error, KVSIFT_INVALID_ARGUMENT, "batch_tokens is ", t, ", must be even, ",
                KVSIFT_BALANCE_MIN_GROUP, " to ", KVSIFT_BALANCE_MAX_BATCH);
  }
  if (c.max_tokens < 1 || c.max_tokens > KVSIFT_MAX_TOKENS) {
    return fail(error, KVSIFT_INVALID_ARGUMENT, "max_tokens is ", c.max_tokens, ", must be 1 to ",
                KVSIFT_MAX_TOKENS);
  }
  if (c.levels > 24)
    return fail(error, KVSIFT_INVALID_ARGUMENT, "levels is ", c.levels, ", must be at most 24");
  if (c.rollback_batches > kMostRollback) {
    return fail(error, KVSIFT_INVALID_ARGUMENT, "rollback_batches is ", c.rollback_batches,
                ", must be at most ", kMostRollback);
  }
  if (c.row_type > KVSIFT_BF16) {
    return fail(error, KVSIFT_INVALID_ARGUMENT, "row_type is ", c.row_type,
                ", must be F32, F16 or BF16");
  }
  if (c.balance.form == KVSIFT_BALANCE_PERMUTATION) {
    return fail(error, KVSIFT_UNSUPPORTED,
                "a stream has no permutation form; UNIFORM is its control");
  }
  if (c.balance.form == KVSIFT_BALANCE_GRADED) {
    return fail(error, KVSIFT_UNSUPPORTED,
                "a stream has no graded form: its tokens come before their importance");
  }
  if (c.balance.form == KVSIFT_BALANCE_CUBLAS) {
    return fail(error, KVSIFT_UNSUPPORTED, "balance.form is ", c.balance.form, ": a stream has no form by cuBLASLt");
  }
  if (c.guard_tokens > KVSIFT_MAX_TOKENS) {
    return fail(error, KVSIFT_INVALID_ARGUMENT, "guard_tokens is ", c.guard_tokens,
                ", must be at most ", KVSIFT_MAX_TOKENS);
  }
  if (c.balance.form != KVSIFT_BALANCE_THEORY) return KVSIFT_OK;
  if (c.balance.guard == 1) {
    return fail(error, KVSIFT_UNSUPPORTED,
                "balance.guard is 1: the theory form has no guard, the others have");
  }
  if (c.buckets < 1 || c.buckets > KVSIFT_BALANCE_MAX_BUCKETS) {
    return fail(error, KVSIFT_INVALID_ARGUMENT, "buckets is ", c.buckets, ", must be 1 to ",
                KVSIFT_BALANCE_MAX_BUCKETS);
  }
  if (c.levels != 0)
    return fail(error, KVSIFT_UNSUPPORTED, "the theory form needs levels 0, not ", c.levels);
  return KVSIFT_OK;
}

// So many that what reaches the top is at most a batch.
std::uint32_t levels_for(std::uint32_t max_tokens, std::uint32_t batch) {
  std::uint32_t levels = 1;
  while ((std::uint64_t{batch} << levels) < max_tokens) ++levels;
  return levels;
}

// Rows that the present and all boundaries can name together. Between pushes a level above 0 holds
// half a batch at most.
std::uint64_t rows_needed(const StreamSettings &s) {
  const std::uint64_t t = s.c.batch_tokens, halves = s.levels * t / 2, boundaries = s.moments - 1;
  const std::uint64_t tree = t + halves, recent = s.recent_tokens() + 1;
  if (s.theory) return s.trees * s.moments * (tree + s.top_entries) + recent;
  // Level i is halved once in 2^i batches, and each halving lets go of half a batch.
  return tree + halves + boundaries * t + s.top_entries + recent +
         std::uint64_t{s.moments} * s.guards;
}

}  // namespace

kvsift_status settle_stream(const kvsift_balance_stream_config &config, StreamSettings *settings) {
  kvsift_status status = check_stream(config);
  if (status != KVSIFT_OK) return status;
  StreamSettings s{};
  s.c = config;
  kvsift_balance_config balance = config.balance;
  balance.halvings = 1;
  balance.group_tokens = 0;
  balance.uniforms = nullptr;
  balance.uniform_count = 0;
  balance.importance = nullptr;
  status = settle_balance(balance, &s.plan);
  if (status != KVSIFT_OK) return status;
  s.plan.c.error = nullptr;
  s.c.balance = s.plan.c;
  s.c.reserved = 0;
  if (config.balance.guard != 0)
    s.guards = config.guard_tokens != 0 ? config.guard_tokens : config.batch_tokens;
  s.c.guard_tokens = s.guards;
  s.theory = balance.form == KVSIFT_BALANCE_THEORY;
  s.levels =
      config.levels != 0 ? config.levels : levels_for(config.max_tokens, config.batch_tokens);
  s.trees = s.theory ? config.buckets + 1 : 1;
  s.top_entries = (config.max_tokens >> s.levels) + config.batch_tokens;
  s.moments = config.rollback_batches + 2;
  s.row_bytes = balance.head_dim * element_bytes(config.row_type);
  const std::uint64_t rows = rows_needed(s);
  if (rows > ~0u)
    return fail(config.balance.error, KVSIFT_INVALID_ARGUMENT, "the stream needs ", rows, " rows");
  s.rows = static_cast<std::uint32_t>(rows);
  *settings = s;
  return KVSIFT_OK;
}

StreamPlaces lay_out_stream(Layout *layout, const StreamSettings &s) {
  StreamPlaces p{};
  layout->take<Stream>(1, "stream");
  p.saved_begin = layout->used();
  p.moments = layout->take<Moment>(s.moments, "moments");
  p.counts = layout->take<std::uint32_t>(std::uint64_t{s.moments} * s.lists(), "list lengths");
  p.entries = layout->take<StreamEntry>(s.moments * s.moment_entries(), "lists");
  p.top = layout->take<StreamEntry>(s.theory ? 0 : s.top_entries, "top list");
  p.guards = layout->take<StreamEntry>(std::uint64_t{s.moments} * s.guards, "guarded tokens");
  p.recent = layout->take<std::uint32_t>(s.recent_tokens(), "recent tokens");
  p.token_of = layout->take<std::uint32_t>(s.rows, "tokens of rows");
  p.saved_end = layout->used();
  p.references = layout->take<std::uint32_t>(s.rows, "references");
  p.free_rows = layout->take<std::uint32_t>(s.rows, "free rows");
  p.keys = layout->take<std::uint8_t>(std::uint64_t{s.rows} * s.row_bytes, "keys");
  p.values = layout->take<std::uint8_t>(std::uint64_t{s.rows} * s.row_bytes, "values");
  p.order = layout->take<std::uint32_t>(s.c.batch_tokens, "order");
  p.weight = layout->take<float>(s.c.batch_tokens, "weights");
  const std::uint64_t most = s.moment_entries() + s.guards + (s.theory ? 0 : s.top_entries);
  p.read_rows = layout->take<std::uint32_t>(most, "rows read");
  p.read_weights = layout->take<float>(most, "weights read");
  p.wide = layout->take<float>(2 * padded_dim(s.plan.c.head_dim), "row");
  if (s.guards > 0) {
    const std::uint64_t most_candidates = std::uint64_t{s.guards} + s.c.batch_tokens;
    p.candidates = layout->take<StreamEntry>(most_candidates, "guard's candidates");
    p.marks = layout->take<std::int8_t>(s.c.batch_tokens, "guard's marks");
  }
  p.halver = lay_out_halver(layout, s.plan, s.c.batch_tokens, s.c.batch_tokens);
  return p;
}

}  // namespace kvsift

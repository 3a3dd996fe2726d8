// Attention over a selection.
#include "attend/together.h"

#include <cmath>
#include <cstring>

#include "attend_job.h"
#include "methods/method.h"
#include "policy/observe.h"

using namespace kvsift;

namespace {

// Dense layers have no unit.
HeadState state_of(const AttendJob &job, std::uint32_t kv_head) {
  const bool dense = job.layer < job.p->s.c.dense_layers;
  return dense ? HeadState{job.p, nullptr, job.layer, kv_head} : head_of(job.p, job.layer, kv_head);
}

// Whether the recovery of a head's choice is counted, which takes masses: on calibration steps that made one.
bool is_counted(const AttendJob &job, std::uint32_t kv_head) {
  const kvsift_selection &s = *job.selection;
  return s.calibration != 0 && s.block_counts != nullptr && s.block_counts[kv_head * job.p->s.lists] > 0;
}

// What the method learns from, and what the recovery is counted by.
OwnRows own_rows(const AttendJob &job, std::uint32_t kv_head) {
  const Settings &s = job.p->s;
  const bool masses = (s.needs & KVSIFT_NEEDS_MASS) != 0, full = job.selection->everything != 0 || job.selection->calibration != 0;
  const bool joined = masses && s.c.block_tokens == 1 && s.c.grouping != KVSIFT_GROUP_QUERY_HEAD && s.group <= kHeads;
  return OwnRows{job.query->tokens, full, !masses, masses || is_counted(job, kv_head), joined};
}

// Rows in the head's own row room; methods that need masses have no late check, whose tail logits would lie there. `lent` is a
// head whose scores are room for weights until they are joined: the same for many heads, it stays in a near cache.
void place_own_rows(const AttendJob &job, std::uint32_t kv_head, std::uint32_t lent, Attended *result) {
  const OwnRows rows = own_rows(job, kv_head);
  const HeadState state = state_of(job, kv_head);
  const Scratch scratch = state.scratch();
  if (rows.joined) {
    const Method &method = *method_of(job.p->s.c.method);
    const bool largest = job.p->s.c.grouping == KVSIFT_GROUP_MAX;
    const float *sums = method.sums == nullptr ? nullptr : method.sums(state, 0);
    result->joined = JoinedShares{scratch.spare, state_of(job, lent).scratch().scores, largest, sums};
    return;
  }
  result->block_max = rows.peaks ? scratch.scores : nullptr;
  result->block_mass = rows.masses ? scratch.spare : nullptr;
  result->block_stride = scratch.stride;
}

// Pooled rows of one KV head, at their place in the caller's buffers or in scratch.
void place_rows(const AttendJob &job, std::uint32_t kv_head, std::uint32_t lent, Attended *result) {
  if (job.rows_to == RowsTo::kNowhere) return;
  const Settings &s = job.p->s;
  result->block_tokens = s.c.block_tokens;
  result->blocks = blocks_of(job.query->tokens, s.c.block_tokens);
  // Chunks are 256 tokens, groups at most 16 heads: there is room.
  result->chunk_max = state_of(job, kv_head).scratch().choice;
  if (job.rows_to == RowsTo::kScratch) return place_own_rows(job, kv_head, lent, result);
  const kvsift_observation &o = *job.observation;
  const std::uint64_t first = std::uint64_t{kv_head} * s.group * o.block_stride;
  if (o.block_max != nullptr) result->block_max = o.block_max + first;
  if (o.block_mass != nullptr) result->block_mass = o.block_mass + first;
  result->block_stride = o.block_stride;
}

bool is_finite_output(const AttendJob &job, const float *out, std::uint32_t heads) {
  const std::uint32_t dim = job.p->s.c.head_dim;
  const Rows rows{reinterpret_cast<const std::uint8_t *>(out), KVSIFT_F32, dim * sizeof(float), nullptr, 0};
  return kernels(job.p->level)->array.rows_finite(rows, heads, dim);
}

// Rows that were checked when they were the newest may have changed since; finite ones may overflow.
kvsift_status check_finite_head(const AttendJob &job, std::uint32_t kv_head, const Attended &result) {
  const std::uint32_t group = job.p->s.group;
  bool finite = result.out == nullptr || is_finite_output(job, result.out, group);
  for (std::uint32_t g = 0; g < group; ++g) finite &= std::isfinite(result.log_sum_exp[g]);
  if (finite) return KVSIFT_OK;
  std::uint32_t g = 0;
  const auto fits = [&] {
    const float *out = result.out == nullptr ? nullptr : result.out + std::size_t{g} * job.p->s.c.head_dim;
    return std::isfinite(result.log_sum_exp[g]) && (out == nullptr || is_finite_output(job, out, 1));
  };
  while (g + 1 < group && fits()) ++g;
  return fail_in(job.p, KVSIFT_NOT_FINITE, "cache: attention of query head ", kv_head * group + g,
                 " is not finite: its keys or values hold NaN or infinity, or overflow");
}

// Output and log-sum-exps of a KV head's query heads must be finite; then its rows are whole.
kvsift_status finish_head(const AttendJob &job, std::uint32_t kv_head, const Attended &result) {
  if (kvsift_status s = check_finite_head(job, kv_head, result)) return s;
  const std::uint32_t group = job.p->s.group;
  if (job.rows_to == RowsTo::kScratch) join_own_rows(state_of(job, kv_head), own_rows(job, kv_head), result.log_sum_exp);
  if (job.rows_to != RowsTo::kCaller) return KVSIFT_OK;
  std::memcpy(job.observation->log_sum_exp + std::uint64_t{kv_head} * group, result.log_sum_exp, group * sizeof(float));
  return KVSIFT_OK;
}

Attended result_of(const AttendJob &job, std::uint32_t kv_head, float *out, float *log_sum_exp) {
  Attended result{};
  if (out != nullptr) result.out = out + std::uint64_t{kv_head} * job.p->s.group * job.p->s.c.head_dim;
  result.log_sum_exp = log_sum_exp;
  return result;
}

// A sparse calibration: the output is the selection's, the rows are those of all tokens.
kvsift_status attend_row_apart(const AttendJob &job, std::uint32_t kv_head, std::uint32_t lent, const Head &head,
                               const Attended &chosen) {
  if (kvsift_status s = check_finite_head(job, kv_head, chosen)) return s;
  Attended row = result_of(job, kv_head, nullptr, chosen.log_sum_exp);
  place_rows(job, kv_head, lent, &row);
  attend_row(head, job.query->tokens, row);
  return finish_head(job, kv_head, row);
}

// One head of a span that begins with head `first`; `next` is the one whose turn comes then, or this one.
kvsift_status attend_head(const AttendJob &job, std::uint32_t first, std::uint32_t kv_head, std::uint32_t next, float *out) {
  float queries[KVSIFT_MAX_GROUP * KVSIFT_MAX_HEAD_DIM];
  float lse[KVSIFT_MAX_GROUP];
  widen_queries(job.p, *job.query, kv_head, 0, queries);
  const Head head = head_query(job, kv_head, queries);
  const Moments moments = moments_for(job, kv_head);
  const bool apart = job.reads_all_keys();
  Attended result = result_of(job, kv_head, out, lse);
  if (!apart) place_rows(job, kv_head, first, &result);
  const List next_list = next > kv_head ? lists_of(job, next).list(0) : List{nullptr, 0};
  const Next coming{head_rows(*job.cache, job.cache->keys, next), next_list};
  attend(head, lists_of(job, kv_head), tail_of(job, kv_head, queries, &moments), result, coming);
  return apart ? attend_row_apart(job, kv_head, first, head, result) : finish_head(job, kv_head, result);
}

// Whether the heads' tokens are all attended to, and lie so that it pays to take the heads together.
bool goes_together(const AttendJob &job, HeadSpan span) {
  if (span.end - span.begin < 2 || !side_by_side(*job.cache)) return false;
  for (std::uint32_t head = span.begin; head < span.end; ++head) {
    const Lists lists = lists_of(job, head);
    if (lists.per_query_head || lists.counts[0] != 1 || lists.ranges[0].begin != 0) return false;
    if (lists.ranges[0].end != job.query->tokens) return false;
  }
  return true;
}

kvsift_status attend_heads_together(const AttendJob &job, HeadSpan span, float *out) {
  const Settings &s = job.p->s;
  float queries[kTogetherFloats], lse[kTogetherQueries];
  Head heads[kTogetherQueries];
  Attended results[kTogetherQueries];
  const std::uint32_t most = heads_together(s.group, s.c.head_dim);
  for (std::uint32_t begin = span.begin, count; begin < span.end; begin += count) {
    count = span.end - begin < most ? span.end - begin : most;
    for (std::uint32_t i = 0; i < count; ++i) {
      float *own = queries + std::size_t{i} * s.group * s.dim16;
      widen_queries(job.p, *job.query, begin + i, 0, own);
      heads[i] = head_query(job, begin + i, own);
      results[i] = result_of(job, begin + i, out, lse + i * s.group);
      place_rows(job, begin + i, begin + i, &results[i]);
    }
    attend_together(heads, results, count, job.query->tokens);
    for (std::uint32_t i = 0; i < count; ++i) {
      if (kvsift_status status = finish_head(job, begin + i, results[i])) return status;
    }
  }
  return KVSIFT_OK;
}

kvsift_status attend_span(const AttendJob &job, HeadSpan span, float *out) {
  if (goes_together(job, span)) return attend_heads_together(job, span, out);
  for (std::uint32_t head = span.begin; head < span.end; ++head) {
    const std::uint32_t next = head + 1 < span.end ? head + 1 : head;
    if (kvsift_status s = attend_head(job, span.begin, head, next, out)) return s;
  }
  return KVSIFT_OK;
}

kvsift_status check_observation(const Policy *p, const kvsift_observation *o, std::uint32_t tokens, HeadSpan span) {
  if (o == nullptr) return KVSIFT_OK;
  if (o->struct_size < sizeof *o) {
    return fail_in(p, KVSIFT_INVALID_STRUCT_SIZE, "observation->struct_size is ", o->struct_size);
  }
  const std::uint32_t blocks = blocks_of(tokens, p->s.c.block_tokens);
  if (kvsift_status s = check_block_buffers(p, *o, blocks)) return s;
  if (kvsift_status s = check_own_room(p, "observation->block_max", o->block_max, o->block_stride, span)) return s;
  if (kvsift_status s = check_own_room(p, "observation->block_mass", o->block_mass, o->block_stride, span)) return s;
  return check_own_room(p, "observation->log_sum_exp", o->log_sum_exp, 1, span);
}

bool is_learnt_from(const AttendJob &job) {
  return job.layer >= job.p->s.c.dense_layers && (job.p->s.needs & KVSIFT_NEEDS_ATTENTION) != 0;
}

// The step was chosen for.
kvsift_status check_chosen(const AttendJob &job, HeadSpan span) {
  const std::uint32_t tokens = job.query->tokens;
  for (std::uint32_t head = span.begin; head < span.end && job.layer >= job.p->s.c.dense_layers; ++head) {
    const std::uint32_t chosen = head_of(job.p, job.layer, head).unit->selected_for;
    if (chosen == tokens) continue;
    return fail_in(job.p, KVSIFT_OUT_OF_ORDER, "query->tokens is ", tokens, ", KV head ", head, " of layer ", job.layer,
                   " has a selection for ", chosen, ": kvsift_select_blocks comes first");
  }
  return KVSIFT_OK;
}

}  // namespace

extern "C" kvsift_status kvsift_attend(const kvsift_policy *policy, uint32_t layer, const kvsift_query *query,
                                       const kvsift_cache *cache, const kvsift_selection *selection, float *out,
                                       kvsift_observation *observation) {
  if (!is_policy(policy)) return KVSIFT_INVALID_ARGUMENT;
  AttendJob job{const_cast<Policy *>(policy_of(policy)), layer, query, cache, selection, RowsTo::kNowhere, observation, false};
  if (observation != nullptr) job.rows_to = RowsTo::kCaller;
  HeadSpan span;
  if (kvsift_status s = check_attend(&job, out, &span)) return s;
  if (kvsift_status s = check_observation(job.p, observation, query->tokens, span)) return s;
  if (kvsift_status s = attend_span(job, span, out)) return s;
  if (observation == nullptr) return KVSIFT_OK;
  observation->tokens = query->tokens;
  observation->full = selection->everything != 0 || selection->calibration != 0;
  observation->rows = nullptr;
  return KVSIFT_OK;
}

extern "C" kvsift_status kvsift_decode_attend(kvsift_policy *policy, uint32_t layer, const kvsift_query *query,
                                              const kvsift_cache *cache, const kvsift_selection *selection, float *out) {
  if (!is_policy(policy)) return KVSIFT_INVALID_ARGUMENT;
  AttendJob job{policy_of(policy), layer, query, cache, selection, RowsTo::kNowhere, nullptr, false};
  const bool learns = is_learnt_from(job), learnt = learns && query != nullptr && is_learnt(job.p->s, query->tokens);
  if (learnt) job.rows_to = RowsTo::kScratch;
  HeadSpan span;
  if (kvsift_status s = check_attend(&job, out, &span)) return s;
  if (kvsift_status s = check_chosen(job, span)) return s;
  if (learns) {
    if (kvsift_status s = check_row_order(job.p, layer, "query->tokens", query->tokens, span)) return s;
  }
  if (kvsift_status s = attend_span(job, span, out)) return s;
  if (!learns) return KVSIFT_OK;
  for (std::uint32_t i = span.begin; i < span.end; ++i) {
    const HeadState head = state_of(job, i);
    if (learnt) learn_own_rows(head, own_rows(job, i));
    if (!learnt) pass_over(head, query->tokens);
  }
  return KVSIFT_OK;
}

extern "C" kvsift_status kvsift_attend_tail(const kvsift_policy *policy, uint32_t layer, const kvsift_query *query,
                                            const kvsift_cache *cache, const kvsift_selection *selection, float *out,
                                            float *log_sum_exp) {
  if (!is_policy(policy)) return KVSIFT_INVALID_ARGUMENT;
  AttendJob job{const_cast<Policy *>(policy_of(policy)), layer, query, cache, selection, RowsTo::kNowhere, nullptr, false};
  HeadSpan span;
  if (out == nullptr) return fail_in(job.p, KVSIFT_INVALID_ARGUMENT, "out is null");
  if (log_sum_exp == nullptr) return fail_in(job.p, KVSIFT_INVALID_ARGUMENT, "log_sum_exp is null");
  // Only a coreset reads the cache.
  if (job.p->s.c.tail != KVSIFT_TAIL_BALANCE) job.cache = nullptr;
  if (job.cache != nullptr && query != nullptr) {
    if (kvsift_status s = check_cache(job.p, cache, query->tokens)) return s;
  }
  if (kvsift_status s = check_job(&job, &span)) return s;
  if (job.tail && selection->tail == KVSIFT_TAIL_BALANCE && cache == nullptr) {
    return fail_in(job.p, KVSIFT_INVALID_ARGUMENT, "cache is null, a coreset's rows are read from it");
  }
  const Settings &s = job.p->s;
  if (kvsift_status status = check_own_room(job.p, "out", out, s.c.head_dim, span)) return status;
  if (kvsift_status status = check_own_room(job.p, "log_sum_exp", log_sum_exp, 1, span)) return status;
  float queries[KVSIFT_MAX_GROUP * KVSIFT_MAX_HEAD_DIM];
  for (std::uint32_t i = span.begin; i < span.end; ++i) {
    widen_queries(job.p, *query, i, 0, queries);
    const Moments moments = moments_for(job, i);
    const Attended result = result_of(job, i, out, log_sum_exp + std::uint64_t{i} * s.group);
    attend_tail(head_query(job, i, queries), lists_of(job, i), tail_of(job, i, queries, &moments), result);
  }
  return KVSIFT_OK;
}

extern "C" kvsift_status kvsift_merge_attention(uint32_t head_dim, float *a, float *la, const float *b, float lb) {
  if (a == nullptr || la == nullptr || b == nullptr || head_dim == 0 || head_dim > KVSIFT_MAX_HEAD_DIM) {
    return KVSIFT_INVALID_ARGUMENT;
  }
  if (!(*la < INFINITY) || !(lb < INFINITY)) return KVSIFT_NOT_FINITE;
  merge_attention(head_dim, a, la, b, lb);
  return KVSIFT_OK;
}

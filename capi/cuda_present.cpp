// What a device policy chose, cut to the blocks that a cache has.
#include "kvsift/kvsift_cuda.h"

#include "cuda/attend/launch.h"
#include "cuda/policy/present.h"
#include "cuda_check.h"

using namespace kvsift;

static kvsift_status check_pages(const Policy *p, const kvsift_cache *cache, HeadSpan span, std::uint32_t tokens) {
  if (kvsift_status s = check_cache(p, cache, tokens)) return s;
  if (cache->block_table == nullptr || cache->page_tokens % p->s.c.block_tokens != 0) {
    return fail_in(p, KVSIFT_INVALID_ARGUMENT, "cache: block_table is null, or page_tokens ", cache->page_tokens,
                   " is no multiple of block_tokens ", p->s.c.block_tokens);
  }
  if (p->s.c.tail == KVSIFT_TAIL_BALANCE) {
    return fail_in(p, KVSIFT_UNSUPPORTED, "config.tail is KVSIFT_TAIL_BALANCE: its rows may lie in the blocks that are missing");
  }
  if (span.begin == 0 && span.end == p->s.c.kv_heads) return KVSIFT_OK;
  return fail_in(p, KVSIFT_INVALID_ARGUMENT, "query: KV heads [", span.begin, ", ", span.end, "), must be all ", p->s.c.kv_heads);
}

// As select described it, but for the lists.
static void describe_present(const CudaPolicy &policy, std::uint32_t layer, std::uint32_t tokens, kvsift_cuda_selection *out) {
  const Image &image = policy.image;
  describe_choice(policy, layer, tokens, out);
  kvsift_selection &lists = out->lists;
  lists.everything = 0;
  lists.range_stride = static_cast<std::uint32_t>(image.room.present_ranges);
  lists.ranges = reinterpret_cast<const kvsift_range *>(image.base + image.room.present);
  lists.range_counts = reinterpret_cast<const std::uint32_t *>(image.base + image.room.present_counts);
  lists.blocks = lists.block_counts = nullptr;
  lists.block_stride = 0;
}

extern "C" kvsift_status kvsift_cuda_keep_present(kvsift_cuda_policy *policy, uint32_t layer, const kvsift_query *query,
                                                  const kvsift_cache *cache, kvsift_cuda_selection *present, void *stream) {
  if (!is_policy(policy)) return KVSIFT_INVALID_ARGUMENT;
  CudaPolicy *own = policy_of(policy);
  const Policy *p = &own->host;
  HeadSpan span;
  if (kvsift_status s = check_attend(own, layer, query, &span)) return s;
  if (kvsift_status s = check_pages(p, cache, span, query->tokens)) return s;
  if (present != nullptr && present->struct_size < sizeof *present) {
    return fail_in(p, KVSIFT_INVALID_STRUCT_SIZE, "present->struct_size is ", present->struct_size);
  }
  const CudaJob job = job_of(own, layer, span, query->tokens, stream);
  const CacheArgs pages = cache_args(*cache);
  const PresentArgs args{job.call, pages.table, pages.table_stride, pages.page_shift};
  const LaunchShape shape{p->s.lists, job.heads(), 1, kPresentThreads, 0};
  if (kvsift_status s = launch(own->device, kKernel_keep_present, shape, job.to.stream, args, job.to.error)) return job.done(s);
  own->present_layer = layer + 1;
  if (present != nullptr) describe_present(*own, layer, query->tokens, present);
  return KVSIFT_OK;
}

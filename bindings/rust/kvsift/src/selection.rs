//! What a step attends to.
use core::slice;

use kvsift_sys as sys;

use crate::cache::{Cache, Query};
use crate::error::{check_length, Result};
use crate::names::Tail;
use crate::observation::Observation;
use crate::policy::Policy;

/// The lists of a [`Policy::select_blocks`]. It borrows the policy: lists hold until the next select.
pub struct Selection<'p> {
    pub(crate) raw: sys::kvsift_selection,
    pub(crate) policy: &'p Policy<'p>,
    pub(crate) layer: u32,
}

impl<'p> Selection<'p> {
    /// Cache length it was made for.
    pub fn tokens(&self) -> u32 {
        self.raw.tokens
    }

    /// One for each KV head, or for each query head.
    pub fn lists(&self) -> usize {
        self.raw.lists as usize
    }

    pub fn per_query_head(&self) -> bool {
        self.raw.per_query_head != 0
    }

    /// Each list is the one range of all tokens.
    pub fn everything(&self) -> bool {
        self.raw.everything != 0
    }

    /// The method wants this step's full attention row.
    pub fn calibration(&self) -> bool {
        self.raw.calibration != 0
    }

    pub fn block_tokens(&self) -> u32 {
        self.raw.block_tokens
    }

    /// What stands for the tokens left out.
    pub fn tail(&self) -> Tail {
        Tail::try_from(self.raw.tail).unwrap_or(Tail::None)
    }

    /// The kept tokens of a list: ascending, disjoint, not adjacent. `None` where there is no such list.
    #[inline]
    pub fn ranges(&self, list: usize) -> Option<&[sys::kvsift_range]> {
        let raw = &self.raw;
        self.list(list, raw.lists, raw.ranges, raw.range_counts, raw.range_stride)
    }

    /// The blocks with a kept token, ascending.
    #[inline]
    pub fn blocks(&self, list: usize) -> Option<&[u32]> {
        let raw = &self.raw;
        self.list(list, raw.lists, raw.blocks, raw.block_counts, raw.block_stride)
    }

    /// The blocks that a late check added; `None` also where the method has no such check.
    pub fn missed(&self, list: usize) -> Option<&[u32]> {
        let raw = &self.raw;
        self.list(list, raw.lists, raw.missed, raw.missed_counts, raw.missed_stride)
    }

    /// Tokens of a balanced tail and their weights; `None` where the tail is another.
    pub fn coreset(&self, kv_head: usize) -> Option<(&[u32], &[f32])> {
        let (raw, heads) = (&self.raw, self.policy.shape().kv_heads);
        let tokens = self.list(kv_head, heads, raw.coreset, raw.coreset_counts, raw.coreset_stride)?;
        let weights =
            self.list(kv_head, heads, raw.coreset_weights, raw.coreset_counts, raw.coreset_stride)?;
        Some((tokens, weights))
    }

    #[inline]
    fn list<T>(
        &self,
        i: usize,
        lists: u32,
        entries: *const T,
        counts: *const u32,
        stride: u32,
    ) -> Option<&[T]> {
        if i >= lists as usize || entries.is_null() || counts.is_null() {
            return None;
        }
        // SAFETY: the library filled `lists` rows of `stride` entries, of which the first `counts[i]` are in use, and they hold
        // while the policy is borrowed.
        unsafe { Some(slice::from_raw_parts(entries.add(i * stride as usize), *counts.add(i) as usize)) }
    }

    /// Attention of the query that was selected for. `out`: `[query heads][head_dim]`, only the query's heads are written.
    #[inline]
    pub fn attend(
        &self,
        query: &Query<'_>,
        cache: &Cache<'_>,
        out: &mut [f32],
        observation: Option<&mut Observation<'_>>,
    ) -> Result<()> {
        let policy = self.policy;
        policy.check_query(query)?;
        policy.check_cache(cache)?;
        policy.check_out(out, 1)?;
        let observed = match observation {
            Some(o) => {
                o.check(policy.shape().query_heads, true)?;
                &mut o.raw as *mut _
            }
            None => core::ptr::null_mut(),
        };
        policy.check_status(self.attend_at(query, cache, out.as_mut_ptr(), observed))
    }

    /// Everything that is read or written has been checked; the pointers are those of all heads.
    #[inline]
    pub(crate) fn attend_at(
        &self,
        query: &Query<'_>,
        cache: &Cache<'_>,
        out: *mut f32,
        observation: *mut sys::kvsift_observation,
    ) -> sys::kvsift_status {
        let (policy, lists) = (self.policy.raw(), &self.raw);
        // SAFETY: the callers' checks; only the query's heads are written.
        unsafe { sys::kvsift_attend(policy, self.layer, &query.raw, &cache.raw, lists, out, observation) }
    }

    /// As [`Selection::attend`], and the method learns from what it saw (as by [`Policy::observe_attention`]): faster, and
    /// no buffers to lend. Where it fails nothing was learnt.
    #[inline]
    pub fn decode_attend(&mut self, query: &Query<'_>, cache: &Cache<'_>, out: &mut [f32]) -> Result<()> {
        let policy = self.policy;
        policy.check_query(query)?;
        policy.check_cache(cache)?;
        policy.check_out(out, 1)?;
        policy.check_status(self.decode_attend_at(query, cache, out.as_mut_ptr()))
    }

    #[inline]
    pub(crate) fn decode_attend_at(
        &mut self,
        query: &Query<'_>,
        cache: &Cache<'_>,
        out: *mut f32,
    ) -> sys::kvsift_status {
        let (policy, lists) = (self.policy.raw(), &self.raw);
        // SAFETY: as in `attend_at`; the policy is borrowed by this selection alone, as far as the query's heads go.
        unsafe { sys::kvsift_decode_attend(policy, self.layer, &query.raw, &cache.raw, lists, out) }
    }

    /// The tail alone, to be merged with the output of an engine's own kernel ([`merge_attention`](crate::merge_attention)).
    pub fn attend_tail(
        &self,
        query: &Query<'_>,
        cache: &Cache<'_>,
        out: &mut [f32],
        log_sum_exp: &mut [f32],
    ) -> Result<()> {
        let policy = self.policy;
        policy.check_query(query)?;
        policy.check_cache(cache)?;
        policy.check_out(out, 1)?;
        check_length("log_sum_exp", log_sum_exp.len(), policy.shape().query_heads as usize)?;
        let (out, sums) = (out.as_mut_ptr(), log_sum_exp.as_mut_ptr());
        policy.check_status(self.attend_tail_at(query, cache, out, sums))
    }

    pub(crate) fn attend_tail_at(
        &self,
        query: &Query<'_>,
        cache: &Cache<'_>,
        out: *mut f32,
        sums: *mut f32,
    ) -> sys::kvsift_status {
        let (policy, lists) = (self.policy.raw(), &self.raw);
        // SAFETY: as in `attend_at`.
        unsafe { sys::kvsift_attend_tail(policy, self.layer, &query.raw, &cache.raw, lists, out, sums) }
    }
}

//! BalanceKV: a weighted subset of a cache that stands for all of it, chosen without the queries.
//!
//! ```
//! use kvsift::balance::{attend, Config, Form, Weighted};
//! use kvsift::{aligned, Cache, View};
//!
//! let keys: Vec<f32> = (0..256 * 16).map(|i| (i % 7) as f32 / 7.0).collect();
//! let rows = View::f32(&keys, 16, 0);
//! let cache = Cache::new(256, rows, rows);
//! let config = Config::new(Form::Practical, 16)?.halvings(2);
//! let mut scratch = vec![0; config.scratch_size(256)? as usize + 63];
//! let (mut index, mut weight) = ([0; 64], [0.0; 64]);
//! let kept = config.compress(&cache, 0, 0..256, aligned(&mut scratch), &mut index, &mut weight, None)?;
//! assert_eq!(kept, 64);
//!
//! let mut out = [0.0; 16];
//! attend(0.0, &keys[..16], &cache, 0, Weighted { index: &index, weight: &weight }, None, &mut out)?;
//! # Ok::<(), kvsift::Error>(())
//! ```
use core::marker::PhantomData;

use kvsift_sys as sys;

use crate::cache::{Cache, Query};
use crate::config::setters;
use crate::error::{check, check_length, Result, Sentence};

pub use crate::stream::{Stream, StreamConfig, StreamRows};
pub use kvsift_sys::kvsift_balance_stats as Stats;

/// How signs are drawn, and what is kept of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Form {
    Practical = sys::KVSIFT_BALANCE_PRACTICAL,
    Theory = sys::KVSIFT_BALANCE_THEORY,
    Uniform = sys::KVSIFT_BALANCE_UNIFORM,
    Permutation = sys::KVSIFT_BALANCE_PERMUTATION,
    Relative = sys::KVSIFT_BALANCE_RELATIVE,
    Graded = sys::KVSIFT_BALANCE_GRADED,
}

/// Weights of the result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Weights {
    Normalised = sys::KVSIFT_BALANCE_NORMALISED,
    Published = sys::KVSIFT_BALANCE_PUBLISHED,
}

/// Counters, to be handed to [`Config::compress`].
pub fn stats() -> Stats {
    // SAFETY: all zeros is a valid kvsift_balance_stats.
    let mut stats: Stats = unsafe { core::mem::zeroed() };
    stats.struct_size = core::mem::size_of_val(&stats) as u32;
    stats
}

/// Configuration: a form's defaults, and what differs. The header describes each field.
#[derive(Clone)]
pub struct Config<'a> {
    raw: sys::kvsift_balance_config,
    importance: Option<usize>,
    lent: PhantomData<&'a [f32]>,
}

// SAFETY: its pointers are of slices that are only read.
unsafe impl Send for Config<'_> {}
unsafe impl Sync for Config<'_> {}

impl<'a> Config<'a> {
    pub fn new(form: Form, head_dim: u32) -> Result<Config<'a>> {
        // SAFETY: all zeros is a valid kvsift_balance_config.
        let mut raw: sys::kvsift_balance_config = unsafe { core::mem::zeroed() };
        raw.struct_size = core::mem::size_of_val(&raw) as u32;
        // SAFETY: struct_size is set.
        check(unsafe { sys::kvsift_balance_config_init(&mut raw, form as u32) })?;
        raw.head_dim = head_dim;
        Ok(Config { raw, importance: None, lent: PhantomData })
    }

    setters! {
        halvings: u32,
        group_tokens: u32,
        weights: Weights,
        gamma: f32,
        temperature: f32,
        value_offset: f32,
        softmax_scale: f32,
        failure_probability: f32,
        guard: bool,
        guard_margin: u32,
        layer: u32,
        seed: u64,
    }

    /// Numbers in [0, 1) to use instead of the library's, `[halving][group][group_tokens]`.
    pub fn uniforms(mut self, numbers: &'a [f32]) -> Config<'a> {
        self.raw.uniforms = numbers.as_ptr();
        self.raw.uniform_count = numbers.len() as u64;
        self
    }

    /// For the graded form, by token of the cache ([`importance`] fills it).
    pub fn importance(mut self, shares: &'a [f32]) -> Config<'a> {
        self.raw.importance = shares.as_ptr();
        self.importance = Some(shares.len());
        self
    }

    /// Bytes of scratch to compress `tokens` tokens: exact.
    pub fn scratch_size(&self, tokens: u32) -> Result<u64> {
        let mut bytes = 0;
        // SAFETY: both pointers are valid for the call.
        self.call(|config| unsafe { sys::kvsift_balance_scratch_size(config, tokens, &mut bytes) })?;
        Ok(bytes)
    }

    /// Compresses tokens `range` of a KV head; returns how many were kept, with their weights. `scratch` must be aligned to
    /// 64 bytes ([`aligned`](crate::aligned)).
    #[allow(clippy::too_many_arguments)]
    pub fn compress(
        &self,
        cache: &Cache<'_>,
        head: u32,
        range: core::ops::Range<u32>,
        scratch: &mut [u8],
        index: &mut [u32],
        weight: &mut [f32],
        stats: Option<&mut Stats>,
    ) -> Result<usize> {
        cache.check(head.saturating_add(1), self.raw.head_dim)?;
        check_length("weight", weight.len(), index.len())?;
        if let Some(length) = self.importance {
            check_length("importance", length, cache.tokens() as usize)?;
        }
        let range = sys::kvsift_range { begin: range.start, end: range.end };
        let capacity = u32::try_from(index.len()).unwrap_or(u32::MAX);
        let stats = stats.map_or(core::ptr::null_mut(), |s| s as *mut Stats);
        let mut count = 0;
        self.call(|config| {
            // SAFETY: the cache's rows were checked, the slices are as long as said.
            unsafe {
                sys::kvsift_balance_compress(
                    config,
                    &cache.raw,
                    head,
                    range,
                    scratch.as_mut_ptr().cast(),
                    scratch.len() as u64,
                    index.as_mut_ptr(),
                    weight.as_mut_ptr(),
                    capacity,
                    &mut count,
                    stats,
                )
            }
        })?;
        Ok(count as usize)
    }

    pub(crate) fn raw(&self) -> &sys::kvsift_balance_config {
        &self.raw
    }

    fn call<F>(&self, function: F) -> Result<()>
    where
        F: FnOnce(*const sys::kvsift_balance_config) -> sys::kvsift_status,
    {
        let mut sentence = Sentence::new();
        let mut raw = self.raw;
        raw.error = sentence.place();
        let status = function(&raw);
        sentence.check(status)
    }
}

/// Mean softmax share that each token had in a prompt's last queries: what the graded form goes by. `group` query heads share
/// the query's first KV head. `row` (scratch) and `importance` have an element for each of the query's tokens.
#[allow(clippy::too_many_arguments)]
pub fn importance(
    head_dim: u32,
    scale: f32,
    query: &Query<'_>,
    group: u32,
    cache: &Cache<'_>,
    row: &mut [f32],
    importance: &mut [f32],
) -> Result<()> {
    let heads = query.raw.first_kv_head.saturating_add(1);
    query.check_heads(u64::from(heads) * u64::from(group), head_dim)?;
    cache.check(heads, head_dim)?;
    check_length("row", row.len(), query.raw.tokens as usize)?;
    check_length("importance", importance.len(), query.raw.tokens as usize)?;
    let mut sentence = Sentence::new();
    let (row, importance) = (row.as_mut_ptr(), importance.as_mut_ptr());
    // SAFETY: the rows were checked, the slices are as long as the query's tokens.
    let status = unsafe {
        sys::kvsift_balance_importance(
            head_dim,
            scale,
            &query.raw,
            group,
            &cache.raw,
            row,
            importance,
            sentence.place(),
        )
    };
    sentence.check(status)
}

/// A weighted set of tokens, or of a stream's rows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Weighted<'a> {
    pub index: &'a [u32],
    pub weight: &'a [f32],
}

impl<'a> Weighted<'a> {
    fn raw(&self, name: &str) -> Result<sys::kvsift_weighted> {
        check_length(name, self.weight.len(), self.index.len())?;
        Ok(sys::kvsift_weighted {
            index: self.index.as_ptr(),
            weight: self.weight.as_ptr(),
            count: u32::try_from(self.index.len()).unwrap_or(u32::MAX),
            reserved: 0,
        })
    }

    /// # Safety
    /// The lists hold for `'a`.
    pub(crate) unsafe fn from_library(raw: &sys::kvsift_weighted) -> Weighted<'a> {
        let count = raw.count as usize;
        if count == 0 {
            return Weighted { index: &[], weight: &[] };
        }
        // SAFETY: the library filled `count` entries of each.
        unsafe {
            Weighted {
                index: core::slice::from_raw_parts(raw.index, count),
                weight: core::slice::from_raw_parts(raw.weight, count),
            }
        }
    }
}

/// Attention of one query over weighted tokens of a cache's KV head, `denominator` `None` for the same set. `scale` 0 means
/// `1 / sqrt(head_dim)`, and `head_dim` is the query's length.
pub fn attend(
    scale: f32,
    query: &[f32],
    cache: &Cache<'_>,
    head: u32,
    numerator: Weighted<'_>,
    denominator: Option<Weighted<'_>>,
    out: &mut [f32],
) -> Result<()> {
    let head_dim = u32::try_from(query.len()).unwrap_or(u32::MAX);
    cache.check(head.saturating_add(1), head_dim)?;
    check_length("out", out.len(), query.len())?;
    let numerator = numerator.raw("numerator weights")?;
    let denominator = denominator.map(|d| d.raw("denominator weights")).transpose()?;
    let below = denominator.as_ref().map_or(core::ptr::null(), |d| d as *const _);
    let mut sentence = Sentence::new();
    // SAFETY: the rows were checked, the slices are as long as said; the library checks each index.
    let status = unsafe {
        sys::kvsift_balance_attend(
            head_dim,
            scale,
            query.as_ptr(),
            &cache.raw,
            head,
            &numerator,
            below,
            out.as_mut_ptr(),
            sentence.place(),
        )
    };
    sentence.check(status)
}

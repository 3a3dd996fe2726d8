//! Caches and queries.
use core::marker::PhantomData;

use kvsift_sys as sys;

use crate::error::{Error, Result};
use crate::view::{Extent, View};

/// The page number of each `page_tokens` tokens, for paged caches. Made once, used for many calls: the largest page is looked
/// for here.
#[derive(Clone, Copy)]
pub struct BlockTable<'a> {
    entries: &'a [i32],
    stride: usize,
    pages: u64,
}

impl<'a> BlockTable<'a> {
    /// One table for all heads.
    pub fn shared(entries: &'a [i32]) -> BlockTable<'a> {
        BlockTable::for_each_head(entries, 0)
    }

    /// A table for each KV head, `stride` entries apart. A page that is not there has a negative number.
    pub fn for_each_head(entries: &'a [i32], stride: usize) -> BlockTable<'a> {
        let last = entries.iter().copied().max().unwrap_or(-1);
        BlockTable { entries, stride, pages: (i64::from(last) + 1).max(0) as u64 }
    }
}

/// One layer's cache: the caller's memory, only read.
#[derive(Clone, Copy)]
pub struct Cache<'a> {
    pub(crate) raw: sys::kvsift_cache,
    keys: View<'a>,
    values: View<'a>,
    table_entries: u64,
    pages: u64,
    /// KV heads and head_dim of memory that the library vouches for.
    vouched: Option<(u32, u32)>,
    lent: PhantomData<&'a [u8]>,
}

// SAFETY: a cache is shared slices, which are only read.
unsafe impl Send for Cache<'_> {}
// SAFETY: as above.
unsafe impl Sync for Cache<'_> {}

impl<'a> Cache<'a> {
    /// `tokens` rows for each KV head, the new token's included.
    #[inline]
    pub fn new(tokens: u32, keys: View<'a>, values: View<'a>) -> Cache<'a> {
        let raw = sys::kvsift_cache {
            struct_size: core::mem::size_of::<sys::kvsift_cache>() as u32,
            tokens,
            keys: keys.raw,
            values: values.raw,
            block_table: core::ptr::null(),
            page_tokens: 0,
            block_table_stride: 0,
        };
        Cache { raw, keys, values, table_entries: 0, pages: 1, vouched: None, lent: PhantomData }
    }

    /// Rows in pages of `page_tokens` tokens, a power of two.
    pub fn paged(
        tokens: u32,
        keys: View<'a>,
        values: View<'a>,
        table: BlockTable<'a>,
        page_tokens: u32,
    ) -> Cache<'a> {
        let mut cache = Cache::new(tokens, keys, values);
        cache.raw.block_table = table.entries.as_ptr();
        cache.raw.page_tokens = page_tokens;
        // A stride too large for the header's field is far beyond any table, and refused as such.
        cache.raw.block_table_stride = u32::try_from(table.stride).unwrap_or(u32::MAX);
        cache.table_entries = table.entries.len() as u64;
        cache.pages = table.pages;
        cache
    }

    /// A cache that the library described, of `heads` KV heads; the memory is good while `'a` lasts.
    pub(crate) fn from_library(raw: sys::kvsift_cache, heads: u32, head_dim: u32) -> Cache<'a> {
        let (keys, values) = (View::from_library(raw.keys), View::from_library(raw.values));
        let vouched = Some((heads, head_dim));
        Cache { raw, keys, values, table_entries: u64::MAX, pages: 0, vouched, lent: PhantomData }
    }

    pub fn tokens(&self) -> u32 {
        self.raw.tokens
    }

    /// Whether all rows of KV heads 0 .. heads lie in the slices.
    #[inline]
    pub(crate) fn check(&self, heads: u32, head_dim: u32) -> Result<()> {
        if let Some((has, dim)) = self.vouched {
            if heads <= has && head_dim == dim {
                return Ok(());
            }
            return Err(Error::invalid(format_args!(
                "cache: it has {has} KV heads of head_dim {dim}, the call needs {heads} of {head_dim}"
            )));
        }
        let tokens = u64::from(self.raw.tokens);
        let heads = u64::from(heads);
        let mut extent = Extent { pages: 1, tokens, heads, head_dim: u64::from(head_dim) };
        if !self.raw.block_table.is_null() {
            let page_tokens = u64::from(self.raw.page_tokens);
            if page_tokens == 0 {
                return Err(Error::invalid(format_args!("cache: page_tokens is 0")));
            }
            let wanted = tokens.div_ceil(page_tokens) + (heads - 1) * u64::from(self.raw.block_table_stride);
            if wanted > self.table_entries {
                let entries = self.table_entries;
                return Err(Error::invalid(format_args!(
                    "cache: the block table has {entries} entries, {heads} heads of {tokens} tokens need {wanted}"
                )));
            }
            extent.pages = self.pages;
            extent.tokens = page_tokens;
        }
        self.keys.check("cache keys", extent)?;
        self.values.check("cache values", extent)
    }
}

/// A range of KV heads, with all their query heads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heads {
    pub first: u32,
    /// 0: to the last.
    pub count: u32,
}

impl Heads {
    pub const ALL: Heads = Heads { first: 0, count: 0 };

    #[inline]
    pub(crate) fn raw(self) -> sys::kvsift_query {
        sys::kvsift_query {
            struct_size: core::mem::size_of::<sys::kvsift_query>() as u32,
            first_kv_head: self.first,
            kv_heads: self.count,
            // SAFETY: all zeros is a valid kvsift_query.
            ..unsafe { core::mem::zeroed() }
        }
    }

    /// One past the last head; more than there are is left to the library to refuse.
    #[inline]
    pub(crate) fn end(self, kv_heads: u32) -> u32 {
        match self.count {
            0 => kv_heads,
            count => self.first.saturating_add(count).min(kv_heads),
        }
    }
}

/// The queries of one call.
#[derive(Clone, Copy)]
pub struct Query<'a> {
    pub(crate) raw: sys::kvsift_query,
    view: View<'a>,
}

// SAFETY: a query is a shared slice, which is only read.
unsafe impl Send for Query<'_> {}
// SAFETY: as above.
unsafe impl Sync for Query<'_> {}

impl<'a> Query<'a> {
    /// `tokens`: the cache length that the (last) query sees, itself included. `view`: its heads are query heads, its tokens the
    /// rows of a prompt.
    #[inline]
    pub fn new(tokens: u32, view: View<'a>) -> Query<'a> {
        let mut raw = Heads::ALL.raw();
        raw.tokens = tokens;
        raw.view = view.raw;
        raw.rows = 1;
        Query { raw, view }
    }

    /// For methods whose select reads no query (see [`Info`](crate::Info)`.needs`).
    pub fn unseen(tokens: u32) -> Query<'a> {
        let mut raw = Heads::ALL.raw();
        raw.tokens = tokens;
        Query { view: View::from_library(raw.view), raw }
    }

    /// The last `rows` tokens of a prompt.
    pub fn rows(mut self, rows: u32) -> Query<'a> {
        self.raw.rows = rows;
        self
    }

    /// Only these KV heads.
    pub fn heads(mut self, heads: Heads) -> Query<'a> {
        self.raw.first_kv_head = heads.first;
        self.raw.kv_heads = heads.count;
        self
    }

    #[inline]
    pub(crate) fn row_count(&self) -> u32 {
        self.raw.rows.max(1)
    }

    #[inline]
    pub(crate) fn check(&self, kv_heads: u32, group: u32, head_dim: u32) -> Result<()> {
        let heads = Heads { first: self.raw.first_kv_head, count: self.raw.kv_heads }.end(kv_heads);
        self.check_heads(u64::from(heads) * u64::from(group), head_dim)
    }

    #[inline]
    pub(crate) fn check_heads(&self, query_heads: u64, head_dim: u32) -> Result<()> {
        let tokens = u64::from(self.row_count());
        self.view
            .check("query", Extent { pages: 1, tokens, heads: query_heads, head_dim: u64::from(head_dim) })
    }
}

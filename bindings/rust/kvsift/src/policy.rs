//! The policy: one object in one arena.
use core::marker::PhantomData;
use core::ptr::NonNull;

use kvsift_sys as sys;

use crate::arena::Arena;
use crate::cache::{Cache, Heads, Query};
use crate::config::{Config, Shape};
use crate::error::{check_length, text, Error, Result, Status};
use crate::heads::HeadsMut;
use crate::observation::Observation;
use crate::selection::Selection;
use crate::view::{Extent, View};

/// Decides, token by token, what attention needs. `Send`, not `Sync`: a handle belongs to one thread at a time.
///
/// ```
/// use kvsift::{aligned, Config, Method, Policy, Shape, Status};
/// let shape = Shape { layers: 1, query_heads: 2, kv_heads: 1, head_dim: 16, max_tokens: 512 };
/// let config = Config::new(Method::PageStats, shape).dense_layers(0);
/// let mut memory = vec![0; config.arena_size()?.bytes as usize + 63];
/// let mut policy = Policy::new_in(&config, aligned(&mut memory))?;
/// let error = policy.advance(1).unwrap_err();
/// assert_eq!(error.status(), Status::OutOfOrder);
/// assert!(error.message().contains("layer 0 has keys of 0"), "{error}");
/// # Ok::<(), kvsift::Error>(())
/// ```
pub struct Policy<'a> {
    raw: NonNull<sys::kvsift_policy>,
    shape: Shape,
    _arena: Arena<'a>,
    _weights: PhantomData<&'a [u8]>,
}

// SAFETY: the library keeps no state outside the arena, so a policy may move to another thread.
unsafe impl Send for Policy<'_> {}

impl<'a> Policy<'a> {
    /// A policy in memory of its own.
    #[cfg(feature = "alloc")]
    pub fn new(config: &Config<'a>) -> Result<Policy<'a>> {
        let size = config.arena_size()?;
        Policy::create(config, Arena::owned(size.bytes, size.alignment)?)
    }

    /// A policy in the caller's memory, at least [`Config::arena_size`] and aligned as it says.
    pub fn new_in(config: &Config<'a>, memory: &'a mut [u8]) -> Result<Policy<'a>> {
        Policy::create(config, Arena::lent(memory))
    }

    fn create(config: &Config<'a>, arena: Arena<'a>) -> Result<Policy<'a>> {
        let mut raw = core::ptr::null_mut();
        config.call(|c| {
            // SAFETY: the arena is as long as said and lives as long as the policy.
            unsafe { sys::kvsift_policy_create(c, arena.start(), arena.bytes(), &mut raw) }
        })?;
        let c = config.raw();
        let shape = Shape {
            layers: c.layers,
            query_heads: c.query_heads,
            kv_heads: c.kv_heads,
            head_dim: c.head_dim,
            max_tokens: c.max_tokens,
        };
        Policy::of(raw, shape, arena)
    }

    fn of(raw: *mut sys::kvsift_policy, shape: Shape, arena: Arena<'a>) -> Result<Policy<'a>> {
        let raw = NonNull::new(raw)
            .ok_or_else(|| Error::new(Status::Unknown, format_args!("no policy was made")))?;
        Ok(Policy { raw, shape, _arena: arena, _weights: PhantomData })
    }

    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// Keys, and values where [`Info`](crate::Info)`.needs` asks for them, of tokens `first_token ..  first_token + tokens`;
    /// the views are indexed from 0.
    pub fn observe_keys(
        &mut self,
        layer: u32,
        heads: Heads,
        first_token: u32,
        tokens: u32,
        keys: &View<'_>,
        values: Option<&View<'_>>,
    ) -> Result<()> {
        let code = self.observe_keys_of(layer, heads, first_token, tokens, keys, values)?;
        self.check_status(code)
    }

    /// For one thread at a time, or for disjoint heads.
    pub(crate) fn observe_keys_of(
        &self,
        layer: u32,
        heads: Heads,
        first_token: u32,
        tokens: u32,
        keys: &View<'_>,
        values: Option<&View<'_>>,
    ) -> Result<sys::kvsift_status> {
        let extent = Extent {
            pages: 1,
            tokens: u64::from(tokens),
            heads: u64::from(heads.end(self.shape.kv_heads)),
            head_dim: u64::from(self.shape.head_dim),
        };
        keys.check("keys", extent)?;
        if let Some(values) = values {
            values.check("values", extent)?;
        }
        let values = values.map_or(core::ptr::null(), |v| &v.raw);
        // SAFETY: the rows were checked to lie in their slices.
        Ok(unsafe {
            sys::kvsift_observe_keys(self.raw(), layer, &heads.raw(), first_token, tokens, &keys.raw, values)
        })
    }

    /// Chooses what the query attends to. The selection borrows the policy until it is let go.
    #[inline]
    pub fn select_blocks<'p>(&'p mut self, layer: u32, query: &Query<'_>) -> Result<Selection<'p>> {
        let policy: &'p Policy<'p> = self;
        let (raw, code) = policy.select_of(layer, query)?;
        policy.check_status(code)?;
        Ok(Selection { raw, policy, layer })
    }

    /// For one thread at a time, or for queries of disjoint heads.
    #[inline]
    pub(crate) fn select_of(
        &self,
        layer: u32,
        query: &Query<'_>,
    ) -> Result<(sys::kvsift_selection, sys::kvsift_status)> {
        self.check_query(query)?;
        // SAFETY: all zeros is a valid kvsift_selection.
        let mut raw: sys::kvsift_selection = unsafe { core::mem::zeroed() };
        raw.struct_size = core::mem::size_of_val(&raw) as u32;
        // SAFETY: the query's rows were checked, and no other reference to these heads is in use.
        let code = unsafe { sys::kvsift_select_blocks(self.raw(), layer, &query.raw, &mut raw) };
        Ok((raw, code))
    }

    /// The KV heads of a layer in parts of `heads` each (the last may have fewer), for as many threads.
    pub fn heads_mut(&mut self, layer: u32, heads: u32) -> Result<HeadsMut<'_>> {
        HeadsMut::new(self, layer, heads)
    }

    /// The library's sentence of the last call that failed; empty where none has.
    pub fn last_error(&mut self) -> &str {
        // SAFETY: zero-terminated; no call can change it while the policy is borrowed.
        unsafe { text(sys::kvsift_last_error(self.raw())) }
    }

    /// Feeds a step's attention back.
    pub fn observe_attention(
        &mut self,
        layer: u32,
        heads: Heads,
        observation: &Observation<'_>,
    ) -> Result<()> {
        observation.check(self.shape.query_heads, false)?;
        // SAFETY: the buffers were checked; the library only reads them.
        self.check_status(unsafe {
            sys::kvsift_observe_attention(self.raw(), layer, &heads.raw(), &observation.raw)
        })
    }

    /// Once a step, after the last layer: `tokens` were added to the cache.
    #[inline]
    pub fn advance(&mut self, tokens: u32) -> Result<()> {
        // SAFETY: the policy is alive.
        self.check_status(unsafe { sys::kvsift_advance(self.raw(), tokens) })
    }

    /// AttentionPredictor: computes the next token's scores of `layer` ahead of its select.
    pub fn predict_next(&mut self, layer: u32, heads: Heads) -> Result<()> {
        // SAFETY: the policy is alive.
        self.check_status(unsafe { sys::kvsift_predict_next(self.raw(), layer, &heads.raw()) })
    }

    /// Exact causal attention of the prompt's last rows; `out`: `[rows][query heads][head_dim]`.
    pub fn prefill_attend(
        &mut self,
        layer: u32,
        query: &Query<'_>,
        cache: &Cache<'_>,
        out: &mut [f32],
    ) -> Result<()> {
        self.check_query(query)?;
        self.check_cache(cache)?;
        self.check_out(out, query.row_count() as usize)?;
        // SAFETY: everything that is read or written was checked to lie in its slice.
        self.check_status(unsafe {
            sys::kvsift_prefill_attend(self.raw(), layer, &query.raw, &cache.raw, out.as_mut_ptr())
        })
    }

    /// What the policy asks of its engine.
    pub fn info(&self) -> Result<sys::kvsift_policy_info> {
        // SAFETY: all zeros is a valid kvsift_policy_info.
        let mut info: sys::kvsift_policy_info = unsafe { core::mem::zeroed() };
        info.struct_size = core::mem::size_of_val(&info) as u32;
        // SAFETY: the policy is alive.
        self.check_status(unsafe { sys::kvsift_policy_get_info(self.raw(), &mut info) })?;
        Ok(info)
    }

    /// Counters since create or reset.
    pub fn stats(&self) -> Result<sys::kvsift_stats> {
        // SAFETY: all zeros is a valid kvsift_stats.
        let mut stats: sys::kvsift_stats = unsafe { core::mem::zeroed() };
        stats.struct_size = core::mem::size_of_val(&stats) as u32;
        // SAFETY: the policy is alive.
        self.check_status(unsafe { sys::kvsift_get_stats(self.raw(), &mut stats) })?;
        Ok(stats)
    }

    /// Back to the state after create.
    pub fn reset(&mut self) -> Result<()> {
        // SAFETY: the policy is alive.
        self.check_status(unsafe { sys::kvsift_policy_reset(self.raw()) })
    }

    /// Forgets tokens from `tokens` on.
    pub fn truncate(&mut self, tokens: u32) -> Result<()> {
        // SAFETY: the policy is alive.
        self.check_status(unsafe { sys::kvsift_truncate(self.raw(), tokens) })
    }

    /// An independent copy in memory of its own.
    #[cfg(feature = "alloc")]
    pub fn fork(&self) -> Result<Policy<'a>> {
        let bytes = self.info()?.arena_bytes;
        // SAFETY: no argument.
        let alignment = unsafe { sys::kvsift_arena_alignment() };
        self.copy_to(Arena::owned(bytes, alignment)?)
    }

    /// An independent copy in the caller's memory.
    pub fn fork_in<'b>(&self, memory: &'b mut [u8]) -> Result<Policy<'b>>
    where
        'a: 'b,
    {
        self.copy_to(Arena::lent(memory))
    }

    fn copy_to<'b>(&self, arena: Arena<'b>) -> Result<Policy<'b>> {
        let mut copy = core::ptr::null_mut();
        // SAFETY: the arena is as long as said and lives as long as the copy.
        let status = unsafe { sys::kvsift_fork(self.raw(), arena.start(), arena.bytes(), &mut copy) };
        self.check_status(status)?;
        Policy::of(copy, self.shape, arena)
    }

    /// Bytes of a snapshot now.
    pub fn snapshot_size(&self) -> Result<u64> {
        let mut bytes = 0;
        // SAFETY: the policy is alive.
        self.check_status(unsafe { sys::kvsift_snapshot_size(self.raw(), &mut bytes) })?;
        Ok(bytes)
    }

    /// State to bytes; returns how many were written.
    pub fn snapshot_save(&self, buffer: &mut [u8]) -> Result<usize> {
        let mut written = 0;
        let (start, bytes) = (buffer.as_mut_ptr().cast(), buffer.len() as u64);
        // SAFETY: the buffer is as long as said.
        self.check_status(unsafe { sys::kvsift_snapshot_save(self.raw(), start, bytes, &mut written) })?;
        Ok(written as usize)
    }

    /// Bytes of a policy of the same configuration to state. They need not be trusted.
    pub fn snapshot_load(&mut self, buffer: &[u8]) -> Result<()> {
        let (start, bytes) = (buffer.as_ptr().cast(), buffer.len() as u64);
        // SAFETY: the buffer is as long as said.
        self.check_status(unsafe { sys::kvsift_snapshot_load(self.raw(), start, bytes) })
    }

    /// The handle, for calls that this crate does not have.
    pub fn as_raw(&self) -> *mut sys::kvsift_policy {
        self.raw.as_ptr()
    }

    #[inline]
    pub(crate) fn raw(&self) -> *mut sys::kvsift_policy {
        self.raw.as_ptr()
    }

    #[inline]
    pub(crate) fn check_query(&self, query: &Query<'_>) -> Result<()> {
        query.check(self.shape.kv_heads, self.group(), self.shape.head_dim)
    }

    #[inline]
    pub(crate) fn check_cache(&self, cache: &Cache<'_>) -> Result<()> {
        cache.check(self.shape.kv_heads, self.shape.head_dim)
    }

    #[inline]
    pub(crate) fn group(&self) -> u32 {
        self.shape.query_heads / self.shape.kv_heads
    }

    #[inline]
    pub(crate) fn check_out(&self, out: &[f32], rows: usize) -> Result<()> {
        self.check_out_length(out.len(), rows)
    }

    #[inline]
    pub(crate) fn check_out_length(&self, length: usize, rows: usize) -> Result<()> {
        let row = self.shape.query_heads as usize * self.shape.head_dim as usize;
        check_length("out", length, rows.saturating_mul(row))
    }

    #[inline]
    pub(crate) fn check_status(&self, code: sys::kvsift_status) -> Result<()> {
        if code == sys::KVSIFT_OK as i32 {
            return Ok(());
        }
        // SAFETY: the sentence is zero-terminated and is copied at once.
        Err(Error::from_library(code, unsafe { text(sys::kvsift_last_error(self.raw())) }))
    }
}

impl Drop for Policy<'_> {
    fn drop(&mut self) {
        // SAFETY: the policy is alive; its memory goes afterwards.
        unsafe { sys::kvsift_policy_destroy(self.raw()) };
    }
}

//! BalanceKV as a stream: merge and reduce in bounded memory.
use core::marker::PhantomData;
use core::ptr::NonNull;

use kvsift_sys as sys;

use crate::arena::Arena;
use crate::balance::{Config, Form, Stats, Weighted};
use crate::cache::Cache;
use crate::config::setters;
use crate::error::{check, text, Error, Result, Sentence, Status};
use crate::names::Type;
use crate::view::{Extent, View};

/// Configuration of a stream: a form's defaults, and what differs.
#[derive(Clone)]
pub struct StreamConfig {
    raw: sys::kvsift_balance_stream_config,
}

// SAFETY: its pointers are null.
unsafe impl Send for StreamConfig {}
unsafe impl Sync for StreamConfig {}

impl StreamConfig {
    pub fn new(form: Form, head_dim: u32, max_tokens: u32) -> Result<StreamConfig> {
        // SAFETY: all zeros is a valid kvsift_balance_stream_config.
        let mut raw: sys::kvsift_balance_stream_config = unsafe { core::mem::zeroed() };
        raw.struct_size = core::mem::size_of_val(&raw) as u32;
        // SAFETY: struct_size is set.
        check(unsafe { sys::kvsift_balance_stream_config_init(&mut raw, form as u32) })?;
        raw.balance.head_dim = head_dim;
        raw.max_tokens = max_tokens;
        Ok(StreamConfig { raw })
    }

    setters! {
        batch_tokens: u32,
        levels: u32,
        rollback_batches: u32,
        buckets: u32,
        row_type: Type,
        head: u32,
        guard_tokens: u32,
    }

    /// Form, gamma and so on; its uniforms and importance are not used.
    pub fn balance(mut self, config: &Config<'_>) -> StreamConfig {
        self.raw.balance = *config.raw();
        self.raw.balance.uniforms = core::ptr::null();
        self.raw.balance.uniform_count = 0;
        self.raw.balance.importance = core::ptr::null();
        self
    }

    /// Bytes of the arena: exact. It must be aligned to 64.
    pub fn arena_size(&self) -> Result<u64> {
        let mut bytes = 0;
        // SAFETY: both pointers are valid for the call.
        self.call(|config| unsafe { sys::kvsift_balance_stream_arena_size(config, &mut bytes) })?;
        Ok(bytes)
    }

    fn call<F>(&self, function: F) -> Result<()>
    where
        F: FnOnce(*const sys::kvsift_balance_stream_config) -> sys::kvsift_status,
    {
        let mut sentence = Sentence::new();
        let mut raw = self.raw;
        raw.balance.error = sentence.place();
        let status = function(&raw);
        sentence.check(status)
    }
}

/// A cache that is compressed as it grows.
///
/// ```
/// use kvsift::balance::{attend, Form, Stream, StreamConfig};
/// use kvsift::View;
///
/// let mut stream = Stream::new(&StreamConfig::new(Form::Practical, 16, 4096)?.batch_tokens(64))?;
/// let keys: Vec<f32> = (0..1024 * 16).map(|i| (i % 7) as f32 / 7.0).collect();
/// let rows = View::f32(&keys, 16, 0);
/// stream.push(&rows, &rows, 0, 1024)?;
/// let now = stream.read()?;
/// let mut out = [0.0; 16];
/// attend(0.0, &keys[..16], &now.cache(), 0, now.numerator(), Some(now.denominator()), &mut out)?;
/// assert!(now.tokens().len() < 1024);
/// # Ok::<(), kvsift::Error>(())
/// ```
pub struct Stream<'a> {
    raw: NonNull<sys::kvsift_balance_stream>,
    head_dim: u32,
    #[cfg_attr(not(feature = "alloc"), allow(dead_code))]
    arena: Arena<'a>,
}

// SAFETY: the library keeps no state outside the arena.
unsafe impl Send for Stream<'_> {}

impl<'a> Stream<'a> {
    /// A stream in memory of its own.
    #[cfg(feature = "alloc")]
    pub fn new(config: &StreamConfig) -> Result<Stream<'static>> {
        let bytes = config.arena_size()?;
        Stream::create(config, Arena::owned(bytes, u64::from(sys::KVSIFT_ARENA_ALIGNMENT))?)
    }

    /// A stream in the caller's memory.
    pub fn new_in(config: &StreamConfig, memory: &'a mut [u8]) -> Result<Stream<'a>> {
        Stream::create(config, Arena::lent(memory))
    }

    fn create(config: &StreamConfig, arena: Arena<'a>) -> Result<Stream<'a>> {
        let mut raw = core::ptr::null_mut();
        config.call(|c| {
            // SAFETY: the arena is as long as said and lives as long as the stream.
            unsafe { sys::kvsift_balance_stream_create(c, arena.start(), arena.bytes(), &mut raw) }
        })?;
        Stream::of(raw, config.raw.balance.head_dim, arena)
    }

    fn of(raw: *mut sys::kvsift_balance_stream, head_dim: u32, arena: Arena<'a>) -> Result<Stream<'a>> {
        let raw = NonNull::new(raw)
            .ok_or_else(|| Error::new(Status::Unknown, format_args!("no stream was made")))?;
        Ok(Stream { raw, head_dim, arena })
    }

    /// Appends `tokens` tokens of head `head` of the views, which are indexed from 0.
    pub fn push(&mut self, keys: &View<'_>, values: &View<'_>, head: u32, tokens: u32) -> Result<()> {
        let extent = Extent {
            pages: 1,
            tokens: u64::from(tokens),
            heads: u64::from(head) + 1,
            head_dim: u64::from(self.head_dim),
        };
        keys.check("keys", extent)?;
        values.check("values", extent)?;
        // SAFETY: the rows were checked to lie in their slices.
        self.check(unsafe {
            sys::kvsift_balance_stream_push(self.raw.as_ptr(), &keys.raw, &values.raw, head, tokens)
        })
    }

    /// The weighted cache now; it borrows the stream.
    pub fn read(&mut self) -> Result<StreamRows<'_>> {
        // SAFETY: all zeros is a valid kvsift_balance_stream_view.
        let mut raw: sys::kvsift_balance_stream_view = unsafe { core::mem::zeroed() };
        raw.struct_size = core::mem::size_of_val(&raw) as u32;
        // SAFETY: the stream is alive.
        self.check(unsafe { sys::kvsift_balance_stream_read(self.raw.as_ptr(), &mut raw) })?;
        Ok(StreamRows { raw, head_dim: self.head_dim, stream: PhantomData })
    }

    /// Tokens pushed, rows in use now, and the most rows there can ever be.
    pub fn count(&self) -> Result<(u32, u32, u32)> {
        let (mut tokens, mut rows, mut most) = (0, 0, 0);
        // SAFETY: the stream is alive.
        self.check(unsafe {
            sys::kvsift_balance_stream_count(self.raw.as_ptr(), &mut tokens, &mut rows, &mut most)
        })?;
        Ok((tokens, rows, most))
    }

    /// Forgets tokens from `tokens` on.
    pub fn truncate(&mut self, tokens: u32) -> Result<()> {
        // SAFETY: the stream is alive.
        self.check(unsafe { sys::kvsift_balance_stream_truncate(self.raw.as_ptr(), tokens) })
    }

    /// An independent copy in memory of its own.
    #[cfg(feature = "alloc")]
    pub fn fork(&self) -> Result<Stream<'static>> {
        self.copy_to(self.arena.same_size()?)
    }

    /// An independent copy in the caller's memory.
    pub fn fork_in<'b>(&self, memory: &'b mut [u8]) -> Result<Stream<'b>> {
        self.copy_to(Arena::lent(memory))
    }

    fn copy_to<'b>(&self, arena: Arena<'b>) -> Result<Stream<'b>> {
        let mut copy = core::ptr::null_mut();
        // SAFETY: the arena is as long as said and lives as long as the copy.
        self.check(unsafe {
            sys::kvsift_balance_stream_fork(self.raw.as_ptr(), arena.start(), arena.bytes(), &mut copy)
        })?;
        Stream::of(copy, self.head_dim, arena)
    }

    pub fn snapshot_size(&self) -> Result<u64> {
        let mut bytes = 0;
        // SAFETY: the stream is alive.
        self.check(unsafe { sys::kvsift_balance_stream_snapshot_size(self.raw.as_ptr(), &mut bytes) })?;
        Ok(bytes)
    }

    /// State to bytes; returns how many were written.
    pub fn snapshot_save(&self, buffer: &mut [u8]) -> Result<usize> {
        let mut written = 0;
        let (start, bytes) = (buffer.as_mut_ptr().cast(), buffer.len() as u64);
        // SAFETY: the buffer is as long as said.
        self.check(unsafe {
            sys::kvsift_balance_stream_snapshot_save(self.raw.as_ptr(), start, bytes, &mut written)
        })?;
        Ok(written as usize)
    }

    /// Bytes of a stream of the same configuration to state.
    pub fn snapshot_load(&mut self, buffer: &[u8]) -> Result<()> {
        let (start, bytes) = (buffer.as_ptr().cast(), buffer.len() as u64);
        // SAFETY: the buffer is as long as said.
        self.check(unsafe { sys::kvsift_balance_stream_snapshot_load(self.raw.as_ptr(), start, bytes) })
    }

    pub fn stats(&self) -> Result<Stats> {
        let mut stats = crate::balance::stats();
        // SAFETY: the stream is alive.
        self.check(unsafe { sys::kvsift_balance_stream_stats(self.raw.as_ptr(), &mut stats) })?;
        Ok(stats)
    }

    fn check(&self, code: sys::kvsift_status) -> Result<()> {
        if code == sys::KVSIFT_OK as i32 {
            return Ok(());
        }
        // SAFETY: the sentence is zero-terminated and is copied at once.
        Err(Error::from_library(code, unsafe {
            text(sys::kvsift_balance_stream_last_error(self.raw.as_ptr()))
        }))
    }
}

/// The weighted cache of a stream.
pub struct StreamRows<'s> {
    raw: sys::kvsift_balance_stream_view,
    head_dim: u32,
    stream: PhantomData<&'s mut ()>,
}

impl StreamRows<'_> {
    /// One head; its tokens are the stream's rows.
    pub fn cache(&self) -> Cache<'_> {
        Cache::from_library(self.raw.cache, 1, self.head_dim)
    }

    pub fn numerator(&self) -> Weighted<'_> {
        // SAFETY: the lists hold while the stream is borrowed.
        unsafe { Weighted::from_library(&self.raw.numerator) }
    }

    /// Other than the numerator in the theory form only.
    pub fn denominator(&self) -> Weighted<'_> {
        // SAFETY: the lists hold while the stream is borrowed.
        unsafe { Weighted::from_library(&self.raw.denominator) }
    }

    /// Which token each row holds.
    pub fn tokens(&self) -> &[u32] {
        if self.raw.tokens.is_null() {
            return &[];
        }
        // SAFETY: one entry for each row of the cache, while the stream is borrowed.
        unsafe { core::slice::from_raw_parts(self.raw.tokens, self.raw.cache.tokens as usize) }
    }
}

//! A KV cache larger than fast memory: blocks on a slow tier, a fixed number of slots in the arena.
//!
//! A store has threads of its own, which use its memory until it is closed. A store that is leaked is never closed: so it owns
//! its memory, or has it for good (`'static`).
//!
//! ```
//! use kvsift::store::{Config, Shape, SlowTier, Store};
//! use kvsift::{Type, View};
//!
//! let path = std::env::temp_dir().join(format!("kvsift-doc-{}", std::process::id()));
//! let name = std::ffi::CString::new(path.to_str().unwrap()).unwrap();
//! let shape = Shape { layers: 1, query_heads: 1, kv_heads: 1, head_dim: 16, max_tokens: 256, fast_blocks: 8 };
//! let config = Config::new(shape, SlowTier::File(&name))?.type_(Type::F32).storage(Type::F32);
//! let mut store = Store::create(config)?;
//! let keys = [0.5; 64 * 16];
//! let rows = View::f32(&keys, 16, 0);
//! store.append(0, 0, 64, &rows, &rows)?;
//! // a step: select_blocks, then store.resolve(layer, selection), then attend with what that gives
//! assert_eq!(store.info()?.tokens, 64);
//! store.close()?;
//! std::fs::remove_file(path).unwrap();
//! # Ok::<(), kvsift::Error>(())
//! ```
use core::ffi::CStr;
use core::ptr::NonNull;

use kvsift_sys as sys;

use crate::arena::Arena;
use crate::cache::Cache;
use crate::config::{setters, ArenaSize};
use crate::device::RawDevice;
use crate::error::{check, text, Error, Result, Sentence, Status};
use crate::names::Type;
use crate::selection::Selection;
use crate::view::{Extent, View};

pub use crate::device::{Device, Span};
pub use kvsift_sys::{
    kvsift_store_event as Event, kvsift_store_info as Info, kvsift_store_stats as Stats,
    kvsift_ticket as Ticket, KVSIFT_STORE_NO_LIMIT as NO_LIMIT,
};

/// The slow tier.
pub enum SlowTier<'p> {
    File(&'p CStr),
    /// Memory of the caller's: [`Config::slow_size`] bytes, aligned as the config says.
    Host(&'static mut [u8]),
    /// One of the caller's making.
    Custom(RawDevice),
}

impl SlowTier<'_> {
    /// A slow tier of the caller's making.
    pub fn custom<D: Device + 'static>(device: &'static D) -> SlowTier<'static> {
        SlowTier::Custom(RawDevice::new(device))
    }
}

/// How a file is read and written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Io {
    Auto = sys::KVSIFT_STORE_IO_AUTO,
    Uring = sys::KVSIFT_STORE_IO_URING,
    Threads = sys::KVSIFT_STORE_IO_THREADS,
}

/// The model's shape and the store's capacity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    pub layers: u32,
    pub query_heads: u32,
    pub kv_heads: u32,
    pub head_dim: u32,
    pub max_tokens: u32,
    /// A layer has so many slots for each KV head.
    pub fast_blocks: u32,
}

/// Configuration: the defaults, and what differs. The header describes each field.
pub struct Config<'p> {
    raw: sys::kvsift_store_config,
    tier: SlowTier<'p>,
}

impl<'p> Config<'p> {
    pub fn new(shape: Shape, tier: SlowTier<'p>) -> Result<Config<'p>> {
        let backend = match tier {
            SlowTier::File(_) => sys::KVSIFT_STORE_FILE,
            SlowTier::Host(_) => sys::KVSIFT_STORE_HOST,
            SlowTier::Custom(_) => sys::KVSIFT_STORE_CUSTOM,
        };
        // SAFETY: all zeros is a valid kvsift_store_config.
        let mut raw: sys::kvsift_store_config = unsafe { core::mem::zeroed() };
        raw.struct_size = core::mem::size_of_val(&raw) as u32;
        // SAFETY: struct_size is set.
        check(unsafe { sys::kvsift_store_config_init(&mut raw, backend) })?;
        raw.layers = shape.layers;
        raw.query_heads = shape.query_heads;
        raw.kv_heads = shape.kv_heads;
        raw.head_dim = shape.head_dim;
        raw.max_tokens = shape.max_tokens;
        raw.fast_blocks = shape.fast_blocks;
        Ok(Config { raw, tier })
    }

    setters! {
        block_tokens: u32,
        type_: Type,
        storage: Type,
        resident_layers: u32,
        sink_tokens: u32,
        local_tokens: u32,
        late_blocks: u32,
        late_microseconds: u32,
        max_ranges: u32,
        alignment: u32,
        io: Io,
        direct: bool,
        threads: u32,
        depth: u32,
        checksums: bool,
        verify: bool,
        timing: bool,
        trace_events: u32,
    }

    pub fn arena_size(&mut self) -> Result<ArenaSize> {
        let mut size = ArenaSize { bytes: 0, alignment: 0 };
        // SAFETY: all pointers are valid for the call.
        self.call(|c| unsafe { sys::kvsift_store_arena_size(c, &mut size.bytes, &mut size.alignment) })?;
        Ok(size)
    }

    /// Bytes of the slow tier.
    pub fn slow_size(&mut self) -> Result<u64> {
        let mut bytes = 0;
        // SAFETY: both pointers are valid for the call.
        self.call(|c| unsafe { sys::kvsift_store_slow_size(c, &mut bytes) })?;
        Ok(bytes)
    }

    fn call<F>(&mut self, function: F) -> Result<()>
    where
        F: FnOnce(*const sys::kvsift_store_config) -> sys::kvsift_status,
    {
        let mut sentence = Sentence::new();
        let mut raw = self.raw;
        raw.error = sentence.place();
        match &mut self.tier {
            SlowTier::File(path) => raw.path = path.as_ptr(),
            SlowTier::Host(memory) => {
                raw.host_memory = memory.as_mut_ptr().cast();
                raw.host_bytes = memory.len() as u64;
            }
            SlowTier::Custom(device) => raw.device = device.raw(),
        }
        let status = function(&raw);
        sentence.check(status)
    }
}

/// One sequence's cache, all layers and KV heads.
pub struct Store {
    raw: NonNull<sys::kvsift_store>,
    config: sys::kvsift_store_config,
    _arena: Arena<'static>,
}

// SAFETY: a handle may be used from any one thread at a time.
unsafe impl Send for Store {}

/// What a [`Store::resolve`] brought into fast memory.
pub struct Resolved<'s> {
    /// What is left of the selection: all of it, but for a late cap.
    pub selection: Selection<'s>,
    pub cache: Cache<'s>,
}

impl Store {
    /// An empty store, in memory of its own.
    #[cfg(feature = "alloc")]
    pub fn create(mut config: Config<'_>) -> Result<Store> {
        let size = config.arena_size()?;
        Store::make(config, Arena::owned(size.bytes, size.alignment)?, sys::kvsift_store_create)
    }

    /// What an earlier store left, after a close or a crash, in memory of its own.
    #[cfg(feature = "alloc")]
    pub fn open(mut config: Config<'_>) -> Result<Store> {
        let size = config.arena_size()?;
        Store::make(config, Arena::owned(size.bytes, size.alignment)?, sys::kvsift_store_open)
    }

    /// An empty store in the caller's memory.
    pub fn create_in(config: Config<'_>, memory: &'static mut [u8]) -> Result<Store> {
        Store::make(config, Arena::lent(memory), sys::kvsift_store_create)
    }

    /// What an earlier store left, in the caller's memory.
    pub fn open_in(config: Config<'_>, memory: &'static mut [u8]) -> Result<Store> {
        Store::make(config, Arena::lent(memory), sys::kvsift_store_open)
    }

    fn make(mut config: Config<'_>, arena: Arena<'static>, function: Maker) -> Result<Store> {
        let mut raw = core::ptr::null_mut();
        config.call(|c| {
            // SAFETY: the arena is as long as said and lives as long as the store.
            unsafe { function(c, arena.start(), arena.bytes(), &mut raw) }
        })?;
        let raw = NonNull::new(raw)
            .ok_or_else(|| Error::new(Status::Unknown, format_args!("no store was made")))?;
        Ok(Store { raw, config: config.raw, _arena: arena })
    }

    /// Adds tokens of `layer`, all KV heads; the views are indexed from 0.
    pub fn append(
        &mut self,
        layer: u32,
        first_token: u32,
        tokens: u32,
        keys: &View<'_>,
        values: &View<'_>,
    ) -> Result<()> {
        let extent = Extent {
            pages: 1,
            tokens: u64::from(tokens),
            heads: u64::from(self.config.kv_heads),
            head_dim: u64::from(self.config.head_dim),
        };
        keys.check("keys", extent)?;
        values.check("values", extent)?;
        // SAFETY: the rows were checked to lie in their slices.
        self.check(unsafe {
            sys::kvsift_store_append(self.raw.as_ptr(), layer, first_token, tokens, &keys.raw, &values.raw)
        })
    }

    /// Starts fetching the blocks of a selection that are not in fast memory.
    pub fn prefetch(&mut self, layer: u32, selection: &Selection<'_>) -> Result<Ticket> {
        let mut ticket = 0;
        // SAFETY: the selection's lists hold while it is borrowed.
        self.check(unsafe {
            sys::kvsift_store_prefetch(self.raw.as_ptr(), layer, &selection.raw, &mut ticket)
        })?;
        Ok(ticket)
    }

    /// Waits for a prefetch.
    pub fn wait(&mut self, ticket: Ticket) -> Result<()> {
        // SAFETY: the store is alive.
        self.check(unsafe { sys::kvsift_store_wait(self.raw.as_ptr(), ticket) })
    }

    /// Whether a prefetch is done.
    pub fn poll(&mut self, ticket: Ticket) -> Result<bool> {
        let mut done = 0;
        // SAFETY: the store is alive.
        self.check(unsafe { sys::kvsift_store_poll(self.raw.as_ptr(), ticket, &mut done) })?;
        Ok(done != 0)
    }

    /// Brings what is missing of a selection into fast memory. The result borrows the store: it holds until the next call.
    pub fn resolve<'s>(&'s mut self, layer: u32, mut selection: Selection<'s>) -> Result<Resolved<'s>> {
        // SAFETY: all zeros is a valid kvsift_cache.
        let mut cache: sys::kvsift_cache = unsafe { core::mem::zeroed() };
        cache.struct_size = core::mem::size_of_val(&cache) as u32;
        // SAFETY: the selection's lists hold while it is borrowed.
        self.check(unsafe {
            sys::kvsift_store_resolve(self.raw.as_ptr(), layer, &mut selection.raw, &mut cache)
        })?;
        let cache = Cache::from_library(cache, self.config.kv_heads, self.config.head_dim);
        Ok(Resolved { selection, cache })
    }

    /// Copies tokens of one KV head to `keys` and `values`, `[tokens][head_dim]` of the storage type as bytes, and for `i8` storage
    /// their scales.
    pub fn read(
        &mut self,
        layer: u32,
        kv_head: u32,
        first_token: u32,
        keys: &mut [u8],
        values: &mut [u8],
        scales: Option<(&mut [f32], &mut [f32])>,
    ) -> Result<u32> {
        let kind = Type::try_from(self.config.storage).unwrap_or(Type::F32);
        let row = kind.bytes() as usize * self.config.head_dim as usize;
        let tokens = u32::try_from(keys.len() / row).unwrap_or(u32::MAX);
        if keys.len() != tokens as usize * row || values.len() != keys.len() {
            let (k, v) = (keys.len(), values.len());
            return Err(Error::invalid(format_args!(
                "keys and values have {k} and {v} bytes, rows have {row}"
            )));
        }
        let (key_scales, value_scales) = match scales {
            Some((k, v)) => {
                crate::error::check_length("key scales", k.len(), tokens as usize)?;
                crate::error::check_length("value scales", v.len(), tokens as usize)?;
                (k.as_mut_ptr(), v.as_mut_ptr())
            }
            None => (core::ptr::null_mut(), core::ptr::null_mut()),
        };
        let (keys, values) = (keys.as_mut_ptr().cast(), values.as_mut_ptr().cast());
        // SAFETY: the buffers hold `tokens` rows.
        self.check(unsafe {
            let store = self.raw.as_ptr();
            sys::kvsift_store_read(
                store,
                layer,
                kv_head,
                first_token,
                tokens,
                keys,
                values,
                key_scales,
                value_scales,
            )
        })?;
        Ok(tokens)
    }

    /// Forgets tokens from `tokens` on, in every layer that has more.
    pub fn truncate(&mut self, tokens: u32) -> Result<()> {
        // SAFETY: the store is alive.
        self.check(unsafe { sys::kvsift_store_truncate(self.raw.as_ptr(), tokens) })
    }

    /// Waits until all completed blocks are written and durable.
    pub fn flush(&mut self) -> Result<()> {
        // SAFETY: the store is alive.
        self.check(unsafe { sys::kvsift_store_flush(self.raw.as_ptr()) })
    }

    /// Flushes and closes; says so where the flush failed. Dropping a store closes it too.
    pub fn close(mut self) -> Result<()> {
        let flushed = self.flush();
        drop(self);
        flushed
    }

    pub fn info(&self) -> Result<Info> {
        // SAFETY: all zeros is a valid kvsift_store_info.
        let mut info: Info = unsafe { core::mem::zeroed() };
        info.struct_size = core::mem::size_of_val(&info) as u32;
        // SAFETY: the store is alive.
        self.check(unsafe { sys::kvsift_store_get_info(self.raw.as_ptr(), &mut info) })?;
        Ok(info)
    }

    /// Tokens of a layer; 0 where there is no such layer.
    pub fn layer_tokens(&self, layer: u32) -> u32 {
        // SAFETY: the store is alive.
        unsafe { sys::kvsift_store_layer_tokens(self.raw.as_ptr(), layer) }
    }

    pub fn stats(&mut self) -> Result<Stats> {
        // SAFETY: all zeros is a valid kvsift_store_stats.
        let mut stats: Stats = unsafe { core::mem::zeroed() };
        stats.struct_size = core::mem::size_of_val(&stats) as u32;
        // SAFETY: the store is alive.
        self.check(unsafe { sys::kvsift_store_get_stats(self.raw.as_ptr(), &mut stats) })?;
        Ok(stats)
    }

    /// Moves events out of the trace, oldest first; returns how many.
    pub fn read_trace(&mut self, events: &mut [Event]) -> Result<usize> {
        let capacity = u32::try_from(events.len()).unwrap_or(u32::MAX);
        let mut count = 0;
        // SAFETY: the slice is as long as said.
        self.check(unsafe {
            sys::kvsift_store_read_trace(self.raw.as_ptr(), events.as_mut_ptr(), capacity, &mut count)
        })?;
        Ok(count as usize)
    }

    fn check(&self, code: sys::kvsift_status) -> Result<()> {
        if code == sys::KVSIFT_OK as i32 {
            return Ok(());
        }
        // SAFETY: the sentence is zero-terminated and is copied at once.
        Err(Error::from_library(code, unsafe { text(sys::kvsift_store_last_error(self.raw.as_ptr())) }))
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        // SAFETY: the store is alive. Its threads are joined before its memory goes.
        unsafe { sys::kvsift_store_close(self.raw.as_ptr()) };
    }
}

type Maker = unsafe extern "C" fn(
    *const sys::kvsift_store_config,
    *mut core::ffi::c_void,
    u64,
    *mut *mut sys::kvsift_store,
) -> sys::kvsift_status;

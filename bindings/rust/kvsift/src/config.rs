//! Configuration of a policy.
use core::marker::PhantomData;

use kvsift_sys as sys;

use crate::balance::Form;
use crate::error::{check, Result, Sentence};
use crate::names::{Grouping, Method, Pooling, SnapKvProfile, Tail, Type};
use crate::predictor::Predictor;

/// For `dense_tokens`: only what the budget covers is attended to whole.
pub const DENSE_OFF: u32 = sys::KVSIFT_DENSE_OFF;

/// The model's shape and the cache's capacity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    pub layers: u32,
    pub query_heads: u32,
    /// Divides `query_heads`.
    pub kv_heads: u32,
    pub head_dim: u32,
    /// Cache capacity, prompt included.
    pub max_tokens: u32,
}

/// Configuration: a method with the defaults its paper has, and what differs. The header describes each field.
///
/// ```
/// use kvsift::{Config, Method, Shape, Tail};
/// let shape = Shape { layers: 2, query_heads: 8, kv_heads: 2, head_dim: 64, max_tokens: 4096 };
/// let config = Config::new(Method::PageStats, shape).budget_tokens(256).tail(Tail::Moments);
/// assert!(config.arena_size()?.bytes > 0);
/// # Ok::<(), kvsift::Error>(())
/// ```
#[derive(Clone)]
pub struct Config<'a> {
    raw: sys::kvsift_policy_config,
    weights: PhantomData<&'a [u8]>,
}

// SAFETY: the only pointer that is ever set is the predictor's, which is read-only.
unsafe impl Send for Config<'_> {}
unsafe impl Sync for Config<'_> {}

/// What an arena must be like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ArenaSize {
    pub bytes: u64,
    pub alignment: u64,
}

macro_rules! setters {
    ($($(#[$about:meta])* $name:ident: $kind:ty),+ $(,)?) => {
        $($(#[$about])*
        pub fn $name(mut self, value: $kind) -> Self {
            self.raw.$name = value as _;
            self
        })+
    };
}
pub(crate) use setters;

impl<'a> Config<'a> {
    pub fn new(method: Method, shape: Shape) -> Config<'a> {
        // SAFETY: all zeros is a valid kvsift_policy_config.
        let mut raw: sys::kvsift_policy_config = unsafe { core::mem::zeroed() };
        raw.struct_size = core::mem::size_of_val(&raw) as u32;
        // SAFETY: struct_size is set. It cannot fail for a method of the header.
        unsafe { sys::kvsift_policy_config_init(&mut raw, method as u32) };
        raw.layers = shape.layers;
        raw.query_heads = shape.query_heads;
        raw.kv_heads = shape.kv_heads;
        raw.head_dim = shape.head_dim;
        raw.max_tokens = shape.max_tokens;
        Config { raw, weights: PhantomData }
    }

    setters! {
        block_tokens: u32,
        page_tokens: u32,
        budget_tokens: u32,
        budget_share: f32,
        target_mass: f32,
        sink_tokens: u32,
        local_tokens: u32,
        dense_layers: u32,
        dense_tokens: u32,
        grouping: Grouping,
        tail: Tail,
        moments_type: Type,
        softmax_scale: f32,
        rollback_tokens: u32,
        seed: u64,
        window: u32,
        pool_kernel: u32,
        pooling: Pooling,
        pyramid_beta: u32,
        recent_share: f32,
        ema_decay: f32,
        calibration_period: u32,
        calibration_dense: bool,
        history_rows: u32,
        history_type: Type,
        history_floor: f32,
        predict_period: u32,
        predictor_arithmetic: Type,
        predictor_plain: bool,
        verify_blocks: u32,
        balance_halvings: u32,
        balance_group: u32,
        balance_gamma: f32,
        balance_temperature: f32,
        balance_value_offset: f32,
        balance_streaming: bool,
        balance_guard: bool,
        tensor_attention: bool,
        balance_form: Form,
        coreset_tokens: u32,
    }

    /// Window, kernel and pooling of a SnapKV that circulates.
    pub fn snapkv(mut self, profile: SnapKvProfile) -> Result<Self> {
        // SAFETY: raw is initialised.
        check(unsafe { sys::kvsift_policy_config_snapkv(&mut self.raw, profile as u32) })?;
        Ok(self)
    }

    /// The cheaper forms of the AttentionPredictor that pay, together.
    pub fn predictor_fast(mut self) -> Result<Self> {
        // SAFETY: raw is initialised.
        check(unsafe { sys::kvsift_policy_config_predictor_fast(&mut self.raw) })?;
        Ok(self)
    }

    /// Weights other than the built-in ones.
    pub fn predictor(mut self, weights: &'a Predictor<'_>) -> Self {
        self.raw.predictor = weights.raw();
        self
    }

    /// Bytes and alignment of the arena: exact.
    pub fn arena_size(&self) -> Result<ArenaSize> {
        let mut size = ArenaSize { bytes: 0, alignment: 0 };
        self.call(|config| {
            // SAFETY: all three are valid for the call.
            unsafe { sys::kvsift_policy_arena_size(config, &mut size.bytes, &mut size.alignment) }
        })?;
        Ok(size)
    }

    pub(crate) fn raw(&self) -> &sys::kvsift_policy_config {
        &self.raw
    }

    /// A call that leaves its sentence where the config says.
    pub(crate) fn call<F>(&self, function: F) -> Result<()>
    where
        F: FnOnce(*const sys::kvsift_policy_config) -> sys::kvsift_status,
    {
        let mut sentence = Sentence::new();
        let mut raw = self.raw;
        raw.error = sentence.place();
        let status = function(&raw);
        sentence.check(status)
    }
}

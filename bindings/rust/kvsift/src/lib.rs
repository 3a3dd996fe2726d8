//! Decides which blocks of a KV cache attention needs, token by token.
//!
//! A thin, safe layer over the C library: every call checks its slices against the shapes and hands them on. Nothing is
//! allocated but arenas, once, by the constructors that take no memory of the caller's, and the sentences of errors (feature
//! `alloc`, without which neither is there).
//! The C header documents what each call does; the names are the same.
//!
//! ```
//! use kvsift::{Cache, Config, Heads, Method, Policy, Query, Shape, View};
//!
//! let shape = Shape { layers: 1, query_heads: 2, kv_heads: 1, head_dim: 16, max_tokens: 512 };
//! let mut policy = Policy::new(&Config::new(Method::PageStats, shape).budget_tokens(160).dense_layers(0))?;
//!
//! let (keys, values) = (vec![0.5f32; 512 * 16], vec![1.0f32; 512 * 16]);
//! let (keys, values) = (View::f32(&keys, 16, 0), View::f32(&values, 16, 0));
//! policy.observe_keys(0, Heads::ALL, 0, 511, &keys, Some(&values))?; // the prompt ...
//! policy.advance(511)?;
//! policy.observe_keys(0, Heads::ALL, 511, 1, &keys, Some(&values))?; // ... and the new token
//!
//! let queries = [0.25f32; 2 * 16];
//! let query = Query::new(512, View::f32(&queries, 0, 16));
//! let mut out = [0.0f32; 2 * 16];
//! let kept = policy.select_blocks(0, &query)?;
//! kept.attend(&query, &Cache::new(512, keys, values), &mut out, None)?;
//! assert!(kept.ranges(0).unwrap().iter().map(|r| r.end - r.begin).sum::<u32>() <= 160);
//! policy.advance(1)?;
//! assert_eq!(out[0], 1.0);
//! # Ok::<(), kvsift::Error>(())
//! ```
#![no_std]
#![warn(unsafe_op_in_unsafe_fn)]

#[cfg(feature = "alloc")]
extern crate alloc;

mod arena;
pub mod balance;
mod cache;
mod config;
mod device;
mod error;
mod heads;
mod names;
mod observation;
mod policy;
mod predictor;
mod selection;
pub mod store;
mod stream;
mod view;

pub use arena::{aligned, Aligned};
pub use cache::{BlockTable, Cache, Heads, Query};
pub use config::{ArenaSize, Config, Shape, DENSE_OFF};
pub use error::{Error, Result, Status};
pub use heads::{HeadsMut, HeadsOut, HeadsSelection, PolicyHeads};
pub use kvsift_sys as sys;
pub use kvsift_sys::{kvsift_policy_info as Info, kvsift_range as Range, kvsift_stats as Stats};
pub use names::{Grouping, Method, Pooling, SnapKvProfile, Tail, Type};
pub use observation::Observation;
pub use policy::Policy;
pub use predictor::Predictor;
pub use selection::Selection;
pub use view::View;

/// Merges partial attention `b` into `a`, both of one query head; returns the log-sum-exp of both.
pub fn merge_attention(a: &mut [f32], log_sum_a: f32, b: &[f32], log_sum_b: f32) -> Result<f32> {
    error::check_length("b", b.len(), a.len())?;
    let head_dim = u32::try_from(a.len()).unwrap_or(u32::MAX);
    let mut log_sum = log_sum_a;
    // SAFETY: both slices hold head_dim numbers.
    error::check(unsafe {
        sys::kvsift_merge_attention(head_dim, a.as_mut_ptr(), &mut log_sum, b.as_ptr(), log_sum_b)
    })?;
    Ok(log_sum)
}

/// The library's version: major, minor, patch.
pub fn version() -> (u32, u32, u32) {
    // SAFETY: no argument.
    let version = unsafe { sys::kvsift_version() };
    (version >> 16, version >> 8 & 255, version & 255)
}

/// What the library was built with, and what it uses here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BuildInfo {
    /// Instruction sets compiled in, such as `"scalar avx2 avx512"`.
    pub levels: &'static str,
    /// The one in use.
    pub level: &'static str,
    pub cuda: bool,
}

pub fn build_info() -> Result<BuildInfo> {
    // SAFETY: all zeros is a valid kvsift_build_info.
    let mut info: sys::kvsift_build_info = unsafe { core::mem::zeroed() };
    info.struct_size = core::mem::size_of_val(&info) as u32;
    // SAFETY: struct_size is set; both strings are static text.
    unsafe {
        error::check(sys::kvsift_get_build_info(&mut info))?;
        Ok(BuildInfo {
            levels: error::text(info.levels),
            level: error::text(info.level),
            cuda: info.cuda != 0,
        })
    }
}

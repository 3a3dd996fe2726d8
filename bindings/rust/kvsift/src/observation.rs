//! What a step's attention looked like.
use core::marker::PhantomData;

use kvsift_sys as sys;

use crate::error::{check_length, Error, Result};

/// Buffers for the block form, which [`Selection::attend`](crate::Selection::attend) fills.
pub struct Observation<'a> {
    pub(crate) raw: sys::kvsift_observation,
    max_length: Option<usize>,
    mass_length: Option<usize>,
    sum_length: usize,
    rows_length: Option<usize>,
    lent: PhantomData<&'a mut [f32]>,
}

impl<'a> Observation<'a> {
    /// `block_max` and `block_mass`: `[query heads][block_stride]`, the mass only where the method needs it
    /// ([`Info`](crate::Info)`.needs`); `log_sum_exp`: `[query heads]`.
    pub fn blocks(
        block_stride: u32,
        block_max: &'a mut [f32],
        block_mass: Option<&'a mut [f32]>,
        log_sum_exp: &'a mut [f32],
    ) -> Observation<'a> {
        let mut o = Observation::sums(block_stride, log_sum_exp);
        o.max_length = Some(block_max.len());
        o.raw.block_max = block_max.as_mut_ptr();
        o.mass_length = block_mass.as_ref().map(|m| m.len());
        o.raw.block_mass = block_mass.map_or(core::ptr::null_mut(), |m| m.as_mut_ptr());
        o
    }

    /// The same without `block_max`, for methods that ask for masses ([`Info`](crate::Info)`.needs`): they learn from nothing
    /// else.
    pub fn masses(
        block_stride: u32,
        block_mass: &'a mut [f32],
        log_sum_exp: &'a mut [f32],
    ) -> Observation<'a> {
        let mut o = Observation::sums(block_stride, log_sum_exp);
        o.mass_length = Some(block_mass.len());
        o.raw.block_mass = block_mass.as_mut_ptr();
        o
    }

    fn sums(block_stride: u32, log_sum_exp: &'a mut [f32]) -> Observation<'a> {
        let mut o = Observation::empty(0);
        o.raw.block_stride = block_stride;
        o.sum_length = log_sum_exp.len();
        o.raw.log_sum_exp = log_sum_exp.as_mut_ptr();
        o
    }

    /// The row form: softmax rows over all `tokens`, `[query heads][row_stride]`, exact zeros where nothing was attended.
    /// For engines with their own kernel. `full`: everything was attended.
    pub fn rows(tokens: u32, rows: &'a [f32], row_stride: usize, full: bool) -> Observation<'a> {
        let mut o = Observation::empty(tokens);
        o.raw.full = u32::from(full);
        o.rows_length = Some(rows.len());
        o.raw.rows = rows.as_ptr();
        o.raw.row_stride = row_stride as u64;
        o
    }

    /// For engines that fill the block form themselves: the step's cache length, and whether everything was attended.
    pub fn step(mut self, tokens: u32, full: bool) -> Observation<'a> {
        self.raw.tokens = tokens;
        self.raw.full = u32::from(full);
        self
    }

    pub fn tokens(&self) -> u32 {
        self.raw.tokens
    }

    /// Everything was attended to: this is the full row.
    pub fn full(&self) -> bool {
        self.raw.full != 0
    }

    fn empty(tokens: u32) -> Observation<'a> {
        // SAFETY: all zeros is a valid kvsift_observation.
        let mut raw: sys::kvsift_observation = unsafe { core::mem::zeroed() };
        raw.struct_size = core::mem::size_of_val(&raw) as u32;
        raw.tokens = tokens;
        Observation {
            raw,
            max_length: None,
            mass_length: None,
            sum_length: 0,
            rows_length: None,
            lent: PhantomData,
        }
    }

    /// With pointers to where the buffers of all heads would begin, if these are those of the query heads from `first` on.
    pub(crate) fn at_head(&self, first: usize) -> sys::kvsift_observation {
        let mut raw = self.raw;
        if !raw.block_max.is_null() {
            raw.block_max = raw.block_max.wrapping_sub(first * raw.block_stride as usize);
        }
        if !raw.block_mass.is_null() {
            raw.block_mass = raw.block_mass.wrapping_sub(first * raw.block_stride as usize);
        }
        raw.log_sum_exp = raw.log_sum_exp.wrapping_sub(first);
        if !raw.rows.is_null() {
            raw.rows = raw.rows.wrapping_sub(first.wrapping_mul(raw.row_stride as usize));
        }
        raw
    }

    /// What `attend` says of the step, from a copy that it filled.
    pub(crate) fn take_step(&mut self, filled: &sys::kvsift_observation) {
        self.raw.tokens = filled.tokens;
        self.raw.full = filled.full;
    }

    /// Whether the buffers hold `query_heads` rows; what the strides must be is the library's to check.
    pub(crate) fn check(&self, query_heads: u32, writes: bool) -> Result<()> {
        let heads = query_heads as usize;
        if let Some(length) = self.rows_length {
            if writes {
                return Err(Error::invalid(format_args!("observation: it has rows, attend fills blocks")));
            }
            let stride = usize::try_from(self.raw.row_stride).unwrap_or(usize::MAX);
            if (self.raw.tokens as usize) > stride {
                let tokens = self.raw.tokens;
                return Err(Error::invalid(format_args!(
                    "observation: row_stride {stride} is less than {tokens} tokens"
                )));
            }
            return check_length("observation rows", length, heads.saturating_mul(stride));
        }
        let wanted = heads.saturating_mul(self.raw.block_stride as usize);
        if let Some(length) = self.max_length {
            check_length("observation block_max", length, wanted)?;
        }
        if let Some(length) = self.mass_length {
            check_length("observation block_mass", length, wanted)?;
        }
        check_length("observation log_sum_exp", self.sum_length, heads)
    }
}

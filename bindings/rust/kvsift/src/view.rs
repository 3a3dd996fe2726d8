//! Rows of keys, values and queries, read where they lie.
use core::marker::PhantomData;

use kvsift_sys as sys;

use crate::error::{Error, Result};
use crate::names::Type;

/// Rows of `head_dim` contiguous elements, one for each token and head. Strides count elements:
/// row (token, head) of a contiguous cache begins at `token * token_stride + head * head_stride`.
///
/// Every call checks that the rows it reads lie inside the slice.
#[derive(Clone, Copy)]
pub struct View<'a> {
    pub(crate) raw: sys::kvsift_view,
    bytes: u64,
    scale_bytes: u64,
    lent: PhantomData<&'a [u8]>,
}

// SAFETY: a view is a shared slice, which is only read.
unsafe impl Send for View<'_> {}
// SAFETY: as above.
unsafe impl Sync for View<'_> {}

/// What of a view a call reads.
#[derive(Clone, Copy)]
pub(crate) struct Extent {
    pub pages: u64,
    /// Of a page; of all, where there is one page.
    pub tokens: u64,
    pub heads: u64,
    pub head_dim: u64,
}

impl<'a> View<'a> {
    #[inline]
    pub fn f32(data: &'a [f32], token_stride: usize, head_stride: usize) -> View<'a> {
        View::of(data, Type::F32, token_stride, head_stride)
    }

    /// Half precision, as bits.
    #[inline]
    pub fn f16(data: &'a [u16], token_stride: usize, head_stride: usize) -> View<'a> {
        View::of(data, Type::F16, token_stride, head_stride)
    }

    /// The upper half of a `f32`, as bits.
    #[inline]
    pub fn bf16(data: &'a [u16], token_stride: usize, head_stride: usize) -> View<'a> {
        View::of(data, Type::Bf16, token_stride, head_stride)
    }

    /// Bytes with one scale for each row. `scale_strides`: from token to token, and from head to head.
    pub fn i8(
        data: &'a [i8],
        token_stride: usize,
        head_stride: usize,
        scales: &'a [f32],
        scale_strides: (usize, usize),
    ) -> View<'a> {
        let mut view = View::of(data, Type::I8, token_stride, head_stride);
        view.raw.scales = scales.as_ptr();
        view.raw.scale_token_stride = scale_strides.0 as u64 * 4;
        view.raw.scale_head_stride = scale_strides.1 as u64 * 4;
        view.scale_bytes = core::mem::size_of_val(scales) as u64;
        view
    }

    /// For a cache with a block table: elements (and, for `i8`, scales) from a page to the next.
    pub fn paged(mut self, page_stride: usize, scale_page_stride: usize) -> View<'a> {
        self.raw.page_stride = page_stride as u64 * self.element_bytes();
        self.raw.scale_page_stride = scale_page_stride as u64 * 4;
        self
    }

    #[inline]
    fn of<T>(data: &'a [T], element: Type, token_stride: usize, head_stride: usize) -> View<'a> {
        let size = element.bytes();
        View {
            raw: sys::kvsift_view {
                data: data.as_ptr().cast(),
                type_: element as u32,
                reserved: 0,
                token_stride: token_stride as u64 * size,
                head_stride: head_stride as u64 * size,
                page_stride: 0,
                scales: core::ptr::null(),
                scale_token_stride: 0,
                scale_head_stride: 0,
                scale_page_stride: 0,
            },
            bytes: core::mem::size_of_val(data) as u64,
            scale_bytes: 0,
            lent: PhantomData,
        }
    }

    /// A view the library made, of memory that it vouches for while `'a` lasts; or of nothing, which the library refuses
    /// where it would read.
    pub(crate) fn from_library(raw: sys::kvsift_view) -> View<'a> {
        View { raw, bytes: u64::MAX, scale_bytes: u64::MAX, lent: PhantomData }
    }

    #[inline]
    fn element_bytes(&self) -> u64 {
        match self.raw.type_ {
            sys::KVSIFT_F32 => 4,
            sys::KVSIFT_I8 => 1,
            _ => 2,
        }
    }

    #[inline]
    pub(crate) fn check(&self, name: &str, extent: Extent) -> Result<()> {
        let raw = &self.raw;
        let strides = [raw.page_stride, raw.token_stride, raw.head_stride];
        let end = extent.end(strides, extent.head_dim * self.element_bytes());
        if end > self.bytes {
            return Err(beyond(name, "data", self.bytes, end, extent));
        }
        if raw.scales.is_null() {
            return Ok(());
        }
        let end = extent.end([raw.scale_page_stride, raw.scale_token_stride, raw.scale_head_stride], 4);
        if end > self.scale_bytes {
            return Err(beyond(name, "scales", self.scale_bytes, end, extent));
        }
        Ok(())
    }
}

impl Extent {
    /// Where the last row ends, in bytes; the largest number there is, where that is beyond all numbers.
    #[inline]
    fn end(self, strides: [u64; 3], row: u64) -> u64 {
        let counts = [self.pages, self.tokens, self.heads];
        if counts.contains(&0) {
            return 0;
        }
        let steps = counts.into_iter().zip(strides).map(|(count, stride)| (count - 1).saturating_mul(stride));
        steps.fold(row, u64::saturating_add)
    }
}

#[cold]
fn beyond(name: &str, what: &str, bytes: u64, end: u64, extent: Extent) -> Error {
    let Extent { pages, tokens, heads, .. } = extent;
    Error::invalid(format_args!(
        "{name}: the {what} have {bytes} bytes, {heads} heads of {pages} x {tokens} tokens end at {end}"
    ))
}

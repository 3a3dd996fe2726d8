//! Memory that objects live in: the caller's, or their own.
use core::marker::PhantomData;
use core::ptr::NonNull;

#[cfg(feature = "alloc")]
use crate::error::{Error, Result, Status};

/// Bytes at an address every arena accepts, for arenas of a size known at compile time:
/// `static mut`, the stack, or inside another structure.
#[repr(C, align(64))]
pub struct Aligned<const BYTES: usize>(pub [u8; BYTES]);

impl<const BYTES: usize> Aligned<BYTES> {
    pub const fn new() -> Self {
        Aligned([0; BYTES])
    }
}

impl<const BYTES: usize> Default for Aligned<BYTES> {
    fn default() -> Self {
        Aligned::new()
    }
}

/// The part of `memory` that starts where arenas and scratch may start: up to 63 bytes less.
pub fn aligned(memory: &mut [u8]) -> &mut [u8] {
    let skip = memory.as_ptr().align_offset(core::mem::align_of::<Aligned<1>>()).min(memory.len());
    &mut memory[skip..]
}

const _: () = assert!(core::mem::align_of::<Aligned<1>>() == kvsift_sys::KVSIFT_ARENA_ALIGNMENT as usize);

pub(crate) struct Arena<'a> {
    start: NonNull<u8>,
    bytes: usize,
    #[cfg(feature = "alloc")]
    owned: Option<core::alloc::Layout>,
    lent: PhantomData<&'a mut [u8]>,
}

impl<'a> Arena<'a> {
    pub(crate) fn lent(memory: &'a mut [u8]) -> Arena<'a> {
        Arena {
            bytes: memory.len(),
            start: NonNull::from(memory).cast(),
            #[cfg(feature = "alloc")]
            owned: None,
            lent: PhantomData,
        }
    }

    /// Zeroed: callbacks of the store see arena memory as `&mut [u8]`.
    #[cfg(feature = "alloc")]
    pub(crate) fn owned(bytes: u64, alignment: u64) -> Result<Arena<'a>> {
        let refused =
            || Error::new(Status::ArenaTooSmall, format_args!("no memory for an arena of {bytes} bytes"));
        let size = usize::try_from(bytes).map_err(|_| refused())?.max(1);
        let layout = core::alloc::Layout::from_size_align(size, alignment as usize).map_err(|_| refused())?;
        // SAFETY: the size is not zero.
        let start = NonNull::new(unsafe { alloc::alloc::alloc_zeroed(layout) }).ok_or_else(refused)?;
        Ok(Arena { start, bytes: size, owned: Some(layout), lent: PhantomData })
    }

    #[cfg(feature = "alloc")]
    pub(crate) fn same_size(&self) -> Result<Arena<'static>> {
        Arena::owned(self.bytes(), u64::from(kvsift_sys::KVSIFT_ARENA_ALIGNMENT))
    }

    pub(crate) fn start(&self) -> *mut core::ffi::c_void {
        self.start.as_ptr().cast()
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes as u64
    }
}

#[cfg(feature = "alloc")]
impl Drop for Arena<'_> {
    fn drop(&mut self) {
        if let Some(layout) = self.owned {
            // SAFETY: allocated with this layout in `owned`.
            unsafe { alloc::alloc::dealloc(self.start.as_ptr(), layout) }
        }
    }
}

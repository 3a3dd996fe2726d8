//! Slow tiers of the caller's making.
use core::ffi::c_void;
use core::ops::{Deref, DerefMut};
use core::slice;

use kvsift_sys as sys;

/// A piece of memory of a transfer.
#[repr(transparent)]
pub struct Span(sys::kvsift_store_span);

impl Deref for Span {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the library lends this memory for the transfer.
        unsafe { slice::from_raw_parts(self.0.data.cast(), self.0.bytes as usize) }
    }
}

impl DerefMut for Span {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: the library lends this memory for the transfer.
        unsafe { slice::from_raw_parts_mut(self.0.data.cast(), self.0.bytes as usize) }
    }
}

/// A slow tier. Called from several threads at a time. Failures are errno values; a panic aborts the process. The spans follow
/// on from `offset`.
///
/// `read` and `write` run on threads of the library's, whose stacks have 256 KiB, **no guard page**, and the store's memory below
/// them: large arrays and deep recursion belong on the heap, or on a thread of the device's own.
pub trait Device: Sync {
    /// Fills spans; returns the bytes done, fewer than asked for where the rest shall be asked for again, 0 at the end.
    fn read(&self, offset: u64, spans: &mut [Span]) -> Result<u64, i32>;
    /// Takes spans; returns the bytes done.
    fn write(&self, offset: u64, spans: &[Span]) -> Result<u64, i32>;
    /// Makes what was written durable.
    fn sync(&self) -> Result<(), i32> {
        Ok(())
    }
}

/// A [`Device`] as the library calls it.
pub struct RawDevice(sys::kvsift_store_device);

impl RawDevice {
    pub(crate) fn new<D: Device + 'static>(device: &'static D) -> RawDevice {
        RawDevice(sys::kvsift_store_device {
            context: (device as *const D).cast_mut().cast(),
            read: Some(read::<D>),
            write: Some(write::<D>),
            sync: Some(sync::<D>),
        })
    }

    pub(crate) fn raw(&self) -> *const sys::kvsift_store_device {
        &self.0
    }
}

fn answer(done: Result<u64, i32>, spans: &[Span]) -> i64 {
    let asked = spans.iter().map(|s| s.0.bytes).sum();
    match done {
        Ok(bytes) => bytes.min(asked) as i64,
        Err(errno) => -i64::from(errno.saturating_abs().max(1)),
    }
}

unsafe extern "C" fn read<D: Device>(
    context: *mut c_void,
    offset: u64,
    spans: *const sys::kvsift_store_span,
    count: u32,
) -> i64 {
    // SAFETY: context is the device that `new` was given; the library owns the spans during the call.
    let (device, spans) = unsafe {
        (&*context.cast::<D>(), slice::from_raw_parts_mut(spans.cast_mut().cast::<Span>(), count as usize))
    };
    answer(device.read(offset, spans), spans)
}

unsafe extern "C" fn write<D: Device>(
    context: *mut c_void,
    offset: u64,
    spans: *const sys::kvsift_store_span,
    count: u32,
) -> i64 {
    // SAFETY: as in `read`.
    let (device, spans) =
        unsafe { (&*context.cast::<D>(), slice::from_raw_parts(spans.cast::<Span>(), count as usize)) };
    answer(device.write(offset, spans), spans)
}

unsafe extern "C" fn sync<D: Device>(context: *mut c_void) -> i32 {
    // SAFETY: context is the device that `new` was given.
    match unsafe { &*context.cast::<D>() }.sync() {
        Ok(()) => 0,
        Err(errno) => -errno.saturating_abs().max(1),
    }
}

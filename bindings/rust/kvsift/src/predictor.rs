//! Weights of the AttentionPredictor.
use core::marker::PhantomData;
use core::ptr::NonNull;

use kvsift_sys as sys;

use crate::arena::Arena;
use crate::config::ArenaSize;
use crate::error::{check, Error, Result, Sentence, Status};

/// Loaded weights, for [`Config::predictor`](crate::Config::predictor). Policies that use them borrow them.
pub struct Predictor<'a> {
    raw: NonNull<sys::kvsift_predictor>,
    _arena: Arena<'a>,
    _not_shared: PhantomData<*mut ()>,
}

// SAFETY: the weights are only read once they are loaded.
unsafe impl Send for Predictor<'_> {}
unsafe impl Sync for Predictor<'_> {}

impl<'a> Predictor<'a> {
    pub fn arena_size() -> Result<ArenaSize> {
        let mut size = ArenaSize { bytes: 0, alignment: 0 };
        // SAFETY: both pointers are valid for the call.
        check(unsafe { sys::kvsift_predictor_arena_size(&mut size.bytes, &mut size.alignment) })?;
        Ok(size)
    }

    /// Weights as `tools/convert_predictor.py` writes them.
    #[cfg(feature = "alloc")]
    pub fn load(data: &[u8]) -> Result<Predictor<'static>> {
        let size = Predictor::arena_size()?;
        Predictor::create(data, Arena::owned(size.bytes, size.alignment)?)
    }

    pub fn load_in(data: &[u8], memory: &'a mut [u8]) -> Result<Predictor<'a>> {
        Predictor::create(data, Arena::lent(memory))
    }

    fn create(data: &[u8], arena: Arena<'a>) -> Result<Predictor<'a>> {
        let mut sentence = Sentence::new();
        let mut raw = core::ptr::null_mut();
        // SAFETY: data and arena are as long as said, and the arena lives as long as the weights.
        let status = unsafe {
            sys::kvsift_predictor_load(
                data.as_ptr().cast(),
                data.len() as u64,
                arena.start(),
                arena.bytes(),
                &mut raw,
                sentence.place(),
            )
        };
        sentence.check(status)?;
        let raw = NonNull::new(raw)
            .ok_or_else(|| Error::new(Status::Unknown, format_args!("no weights were made")))?;
        Ok(Predictor { raw, _arena: arena, _not_shared: PhantomData })
    }

    pub(crate) fn raw(&self) -> *const sys::kvsift_predictor {
        self.raw.as_ptr()
    }
}

//! What can go wrong, with the library's sentence.
use core::ffi::{c_char, CStr};
use core::fmt::{self, Write};

use kvsift_sys as sys;

const MESSAGE_BYTES: usize = sys::KVSIFT_ERROR_BYTES as usize;
/// Without `alloc` an error holds its text itself, and functions that return it should stay cheap.
const SENTENCE_BYTES: usize = if cfg!(feature = "alloc") { MESSAGE_BYTES } else { 104 };

/// Why a call failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[repr(i32)]
pub enum Status {
    InvalidArgument = sys::KVSIFT_INVALID_ARGUMENT as i32,
    InvalidStructSize = sys::KVSIFT_INVALID_STRUCT_SIZE as i32,
    ArenaTooSmall = sys::KVSIFT_ARENA_TOO_SMALL as i32,
    Misaligned = sys::KVSIFT_MISALIGNED as i32,
    NotFinite = sys::KVSIFT_NOT_FINITE as i32,
    OutOfOrder = sys::KVSIFT_OUT_OF_ORDER as i32,
    Capacity = sys::KVSIFT_CAPACITY as i32,
    Rollback = sys::KVSIFT_ROLLBACK as i32,
    Unsupported = sys::KVSIFT_UNSUPPORTED as i32,
    Corrupt = sys::KVSIFT_CORRUPT as i32,
    VersionMismatch = sys::KVSIFT_VERSION_MISMATCH as i32,
    ConfigMismatch = sys::KVSIFT_CONFIG_MISMATCH as i32,
    Io = sys::KVSIFT_IO as i32,
    NoDevice = sys::KVSIFT_NO_DEVICE as i32,
    Device = sys::KVSIFT_DEVICE as i32,
    /// A code this version of the crate does not know.
    Unknown = i32::MAX,
}

impl Status {
    const ALL: [Status; 15] = [
        Status::InvalidArgument,
        Status::InvalidStructSize,
        Status::ArenaTooSmall,
        Status::Misaligned,
        Status::NotFinite,
        Status::OutOfOrder,
        Status::Capacity,
        Status::Rollback,
        Status::Unsupported,
        Status::Corrupt,
        Status::VersionMismatch,
        Status::ConfigMismatch,
        Status::Io,
        Status::NoDevice,
        Status::Device,
    ];

    fn from_code(code: sys::kvsift_status) -> Status {
        Status::ALL.into_iter().find(|s| *s as i32 == code).unwrap_or(Status::Unknown)
    }

    /// The library's words for it.
    pub fn as_str(self) -> &'static str {
        // SAFETY: the library answers every code with static text.
        unsafe { text(sys::kvsift_status_string(self as i32)) }
    }
}

/// A status and the sentence that names the argument and the value. Small enough to be returned by value: without `alloc` a
/// long sentence is cut off.
#[derive(Clone)]
pub struct Error {
    status: Status,
    #[cfg(feature = "alloc")]
    sentence: alloc::boxed::Box<str>,
    #[cfg(not(feature = "alloc"))]
    sentence: Words<SENTENCE_BYTES>,
}

/// The result of everything that can fail.
pub type Result<T> = core::result::Result<T, Error>;

impl Error {
    pub fn status(&self) -> Status {
        self.status
    }

    /// The sentence, or the status in words where the library left none.
    pub fn message(&self) -> &str {
        #[cfg(feature = "alloc")]
        let sentence = &*self.sentence;
        #[cfg(not(feature = "alloc"))]
        let sentence = self.sentence.as_str();
        match sentence {
            "" => self.status.as_str(),
            sentence => sentence,
        }
    }

    #[cold]
    pub(crate) fn new(status: Status, sentence: fmt::Arguments<'_>) -> Error {
        let mut words = Words { length: 0, bytes: [0; SENTENCE_BYTES] };
        // A sentence that is too long is cut off.
        let _ = words.write_fmt(sentence);
        #[cfg(feature = "alloc")]
        let words = words.as_str().into();
        Error { status, sentence: words }
    }

    #[cold]
    pub(crate) fn invalid(sentence: fmt::Arguments<'_>) -> Error {
        Error::new(Status::InvalidArgument, sentence)
    }

    #[cold]
    pub(crate) fn of_heads(code: sys::kvsift_status, layer: u32, first: u32, end: u32) -> Error {
        let status = Status::from_code(code);
        let words = status.as_str();
        Error::new(status, format_args!("layer {layer}, KV heads {first} .. {end}: {words}"))
    }

    #[cold]
    pub(crate) fn from_library(code: sys::kvsift_status, sentence: &str) -> Error {
        Error::new(Status::from_code(code), format_args!("{sentence}"))
    }
}

/// Text without an allocator.
#[derive(Clone)]
struct Words<const N: usize> {
    length: usize,
    bytes: [u8; N],
}

impl<const N: usize> Words<N> {
    fn as_str(&self) -> &str {
        core::str::from_utf8(&self.bytes[..self.length]).unwrap_or("")
    }
}

impl<const N: usize> Write for Words<N> {
    fn write_str(&mut self, words: &str) -> fmt::Result {
        for c in words.chars() {
            let end = self.length + c.len_utf8();
            if end > N {
                return Err(fmt::Error);
            }
            c.encode_utf8(&mut self.bytes[self.length..end]);
            self.length = end;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.status, self.message())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.message())
    }
}

impl core::error::Error for Error {}

/// Text of the library's; empty where it is null or not UTF-8.
///
/// # Safety
/// `words` is null or a zero-terminated string that lives for `'a`.
pub(crate) unsafe fn text<'a>(words: *const c_char) -> &'a str {
    if words.is_null() {
        return "";
    }
    unsafe { CStr::from_ptr(words) }.to_str().unwrap_or("")
}

/// Where calls without a handle leave their sentence.
pub(crate) struct Sentence(sys::kvsift_error);

impl Sentence {
    pub(crate) fn new() -> Sentence {
        Sentence(sys::kvsift_error { status: 0, message: [0; MESSAGE_BYTES] })
    }

    pub(crate) fn place(&mut self) -> *mut sys::kvsift_error {
        &mut self.0
    }

    pub(crate) fn check(&self, code: sys::kvsift_status) -> Result<()> {
        if code == sys::KVSIFT_OK as i32 {
            return Ok(());
        }
        // SAFETY: the buffer is zero-terminated, by the library or as it was made.
        Err(Error::from_library(code, unsafe { text(self.0.message.as_ptr()) }))
    }
}

/// For calls that leave no sentence.
pub(crate) fn check(code: sys::kvsift_status) -> Result<()> {
    if code == sys::KVSIFT_OK as i32 {
        return Ok(());
    }
    Err(Error::from_library(code, ""))
}

/// A slice against the length its shape asks for.
pub(crate) fn check_length(name: &str, length: usize, wanted: usize) -> Result<()> {
    if length == wanted {
        return Ok(());
    }
    Err(Error::invalid(format_args!("{name} has {length} elements, its shape has {wanted}")))
}

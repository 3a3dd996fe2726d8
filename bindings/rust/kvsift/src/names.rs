//! The header's enumerations.
use core::ffi::CStr;

use kvsift_sys as sys;

use crate::error::{check, text, Result};

macro_rules! names {
    ($(#[$about:meta])* $name:ident { $($(#[$note:meta])* $variant:ident = $value:ident),+ $(,)? }) => {
        $(#[$about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u32)]
        pub enum $name { $($(#[$note])* $variant = sys::$value),+ }

        impl $name {
            pub const ALL: &'static [$name] = &[$($name::$variant),+];
        }

        impl TryFrom<u32> for $name {
            type Error = u32;

            fn try_from(value: u32) -> core::result::Result<Self, u32> {
                Self::ALL.iter().copied().find(|v| *v as u32 == value).ok_or(value)
            }
        }
    };
}

names! {
    /// Which blocks are kept, and how that is decided. The header names the papers.
    Method {
        Full = KVSIFT_METHOD_FULL,
        Streaming = KVSIFT_METHOD_STREAMING,
        H2O = KVSIFT_METHOD_H2O,
        SnapKv = KVSIFT_METHOD_SNAPKV,
        PyramidKv = KVSIFT_METHOD_PYRAMIDKV,
        Quest = KVSIFT_METHOD_QUEST,
        PageStats = KVSIFT_METHOD_PAGE_STATS,
        Ema = KVSIFT_METHOD_EMA,
        Uniform = KVSIFT_METHOD_UNIFORM,
        AttentionPredictor = KVSIFT_METHOD_ATTENTION_PREDICTOR,
        Balance = KVSIFT_METHOD_BALANCE,
    }
}

names! {
    /// Types of elements.
    Type { F32 = KVSIFT_F32, F16 = KVSIFT_F16, Bf16 = KVSIFT_BF16, I8 = KVSIFT_I8 }
}

names! {
    /// One choice for each query head, or one for each KV head from its query heads' scores.
    Grouping { QueryHead = KVSIFT_GROUP_QUERY_HEAD, Mean = KVSIFT_GROUP_MEAN, Max = KVSIFT_GROUP_MAX }
}

names! {
    /// What stands for the tokens left out.
    Tail { None = KVSIFT_TAIL_NONE, Moments = KVSIFT_TAIL_MOMENTS, Balance = KVSIFT_TAIL_BALANCE }
}

names! {
    /// SnapKV's pooling.
    Pooling { Avg = KVSIFT_POOL_AVG, Max = KVSIFT_POOL_MAX }
}

names! {
    /// SnapKV profiles that circulate, as window, kernel and pool.
    SnapKvProfile {
        W32K5Avg = KVSIFT_SNAPKV_32_5_AVG,
        W32K7Max = KVSIFT_SNAPKV_32_7_MAX,
        W64K5Avg = KVSIFT_SNAPKV_64_5_AVG,
        W8K7Max = KVSIFT_SNAPKV_8_7_MAX,
    }
}

const _: () = assert!(Method::ALL.len() == sys::KVSIFT_METHOD_COUNT as usize);

impl Method {
    /// The library's name, such as `"page-stats"`.
    pub fn name(self) -> &'static str {
        // SAFETY: static text for every method.
        unsafe { text(sys::kvsift_method_name(self as u32)) }
    }

    /// # Example
    /// ```
    /// use kvsift::Method;
    /// assert_eq!(Method::from_name(c"page-stats")?, Method::PageStats);
    /// # Ok::<(), kvsift::Error>(())
    /// ```
    pub fn from_name(name: &CStr) -> Result<Method> {
        let mut method = 0;
        // SAFETY: both pointers are valid for the call.
        check(unsafe { sys::kvsift_method_from_name(name.as_ptr(), &mut method) })?;
        Method::try_from(method)
            .map_err(|m| crate::Error::invalid(format_args!("method {m} is newer than this crate")))
    }
}

impl Type {
    pub(crate) fn bytes(self) -> u64 {
        match self {
            Type::F32 => 4,
            Type::F16 | Type::Bf16 => 2,
            Type::I8 => 1,
        }
    }
}

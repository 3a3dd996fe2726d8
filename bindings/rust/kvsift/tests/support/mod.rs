//! What several tests use. First of all it reads NumPy .npy files (version 1, little-endian, C order): what the C tests read, from the same files.
#![allow(dead_code)] // each test uses a part
use std::path::{Path, PathBuf};

/// The source tree, where this crate lies in it.
pub fn tree() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../..")
}

pub struct Array {
    kind: String,
    pub shape: Vec<usize>,
    data: Vec<u8>,
}

impl Array {
    pub fn read(path: &Path) -> Option<Array> {
        let bytes = std::fs::read(path).ok()?;
        assert_eq!(&bytes[..8], b"\x93NUMPY\x01\x00", "{}", path.display());
        let start = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
        let header = std::str::from_utf8(&bytes[10..start]).unwrap();
        assert!(header.contains("'fortran_order': False"));
        let kind = between(header, "'descr': '", "'")[1..].to_string();
        let shape = between(header, "'shape': (", ")");
        let shape = shape.split(',').filter_map(|n| n.trim().parse().ok()).collect();
        Some(Array { kind, shape, data: bytes[start..].to_vec() })
    }

    pub fn f32(&self) -> Vec<f32> {
        assert_eq!(self.kind, "f4");
        self.data.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
    }

    pub fn usize(&self) -> Vec<usize> {
        if self.kind == "i8" {
            return self
                .data
                .chunks_exact(8)
                .map(|b| i64::from_le_bytes(b.try_into().unwrap()) as usize)
                .collect();
        }
        assert_eq!(self.kind, "i4");
        self.data.chunks_exact(4).map(|b| i32::from_le_bytes(b.try_into().unwrap()) as usize).collect()
    }

    pub fn bool(&self) -> Vec<bool> {
        assert_eq!(self.kind, "u1");
        self.data.iter().map(|b| *b != 0).collect()
    }
}

fn between<'t>(text: &'t str, start: &str, end: &str) -> &'t str {
    let rest = &text[text.find(start).unwrap() + start.len()..];
    &rest[..rest.find(end).unwrap()]
}

/// Numbers that look random, in [-1, 1), the same on every run.
pub fn noise(seed: u32) -> impl FnMut() -> f32 {
    let mut state = seed.wrapping_mul(2654435761) | 1;
    move || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state as f32 / (1u64 << 31) as f32 - 1.0
    }
}

pub fn random(seed: u32, count: usize) -> Vec<f32> {
    std::iter::repeat_with(noise(seed)).take(count).collect()
}

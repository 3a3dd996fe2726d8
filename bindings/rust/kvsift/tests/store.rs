//! The store: attention from its slots is attention, from memory, a device in Rust, and a file opened again.
mod support;

use std::ffi::CString;
use std::sync::Mutex;

use kvsift::store::{Config, Device, Shape, SlowTier, Span, Store};
use kvsift::{Cache, Heads, Method, Policy, Query, Status, View};
use support::random;

const TOKENS: usize = 320;
const DIM: usize = 32;
const SHAPE: Shape =
    Shape { layers: 1, query_heads: 2, kv_heads: 1, head_dim: DIM as u32, max_tokens: 512, fast_blocks: 16 };

struct Slow(Mutex<Vec<u8>>);

impl Device for Slow {
    fn read(&self, offset: u64, spans: &mut [Span]) -> Result<u64, i32> {
        let (bytes, mut at) = (self.0.lock().unwrap(), offset as usize);
        for span in spans {
            let end = at + span.len();
            span.copy_from_slice(bytes.get(at..end).ok_or(5)?);
            at = end;
        }
        Ok(at as u64 - offset)
    }

    fn write(&self, offset: u64, spans: &[Span]) -> Result<u64, i32> {
        let (mut bytes, mut at) = (self.0.lock().unwrap(), offset as usize);
        for span in spans {
            let end = at + span.len();
            bytes.get_mut(at..end).ok_or(28)?.copy_from_slice(span);
            at = end;
        }
        Ok(at as u64 - offset)
    }
}

fn config(tier: SlowTier<'_>) -> Config<'_> {
    let config = Config::new(SHAPE, tier).unwrap();
    config.type_(kvsift::Type::F32).storage(kvsift::Type::F32).sink_tokens(16).local_tokens(16).direct(false)
}

/// Appends all tokens but one, then takes a step; the output must be the plain cache's, bit for bit.
fn check_attention(store: &mut Store) {
    let (keys, values, queries) = (random(1, TOKENS * DIM), random(2, TOKENS * DIM), random(3, 2 * DIM));
    let (k, v) = (View::f32(&keys, DIM, 0), View::f32(&values, DIM, 0));
    store.append(0, 0, TOKENS as u32, &k, &v).unwrap();
    let shape =
        kvsift::Shape { layers: 1, query_heads: 2, kv_heads: 1, head_dim: DIM as u32, max_tokens: 512 };
    let config = kvsift::Config::new(Method::PageStats, shape)
        .dense_layers(0)
        .dense_tokens(kvsift::DENSE_OFF)
        .budget_tokens(96)
        .sink_tokens(16)
        .local_tokens(16);
    let mut policy = Policy::new(&config).unwrap();
    policy.observe_keys(0, Heads::ALL, 0, TOKENS as u32, &k, Some(&v)).unwrap();
    let query = Query::new(TOKENS as u32, View::f32(&queries, 0, DIM));
    let (mut plain, mut stored) = ([0f32; 2 * DIM], [0f32; 2 * DIM]);

    let selection = policy.select_blocks(0, &query).unwrap();
    assert!(!selection.everything());
    selection.attend(&query, &Cache::new(TOKENS as u32, k, v), &mut plain, None).unwrap();
    let ticket = store.prefetch(0, &selection).unwrap();
    store.wait(ticket).unwrap();
    assert!(store.poll(ticket).unwrap());
    let resolved = store.resolve(0, selection).unwrap();
    resolved.selection.attend(&query, &resolved.cache, &mut stored, None).unwrap();
    assert_eq!(plain, stored);

    let mut rows = vec![0u8; 3 * DIM * 4];
    let mut others = rows.clone();
    assert_eq!(store.read(0, 0, 40, &mut rows, &mut others, None).unwrap(), 3);
    let wanted: Vec<u8> = keys[40 * DIM..43 * DIM].iter().flat_map(|x| x.to_le_bytes()).collect();
    assert_eq!(rows, wanted);
    let refused = store.read(0, 0, 40, &mut rows[1..], &mut others, None).unwrap_err();
    assert_eq!(refused.status(), Status::InvalidArgument);
    let stats = store.stats().unwrap();
    assert!(stats.bytes_written > 0 && stats.corrupt_records == 0);
}

#[test]
fn memory() {
    let bytes = config(SlowTier::Host(&mut [])).slow_size().unwrap() as usize;
    let memory = kvsift::aligned(Box::leak(vec![0u8; bytes + 63].into_boxed_slice()));
    let mut store = Store::create(config(SlowTier::Host(memory))).unwrap();
    check_attention(&mut store);
    store.truncate(100).unwrap();
    assert_eq!(store.layer_tokens(0), 100);
    store.close().unwrap();
}

#[test]
fn a_device_in_rust() {
    let slow: &'static Slow = Box::leak(Box::new(Slow(Mutex::new(Vec::new()))));
    let bytes = config(SlowTier::custom(slow)).slow_size().unwrap();
    slow.0.lock().unwrap().resize(bytes as usize, 0);
    let mut store = Store::create(config(SlowTier::custom(slow)).trace_events(64)).unwrap();
    check_attention(&mut store);
    let mut events = [unsafe { std::mem::zeroed::<kvsift::store::Event>() }; 64];
    assert!(store.read_trace(&mut events).unwrap() > 0);
}

#[test]
fn a_file_is_opened_again() {
    let path = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("rust-store.bin");
    let path = CString::new(path.to_str().unwrap()).unwrap();
    let mut store = Store::create(config(SlowTier::File(&path))).unwrap();
    check_attention(&mut store);
    store.close().unwrap();
    let reopened = Store::open(config(SlowTier::File(&path))).unwrap();
    assert_eq!(reopened.info().unwrap().tokens as usize, TOKENS);
    drop(reopened);
    let other = Store::open(config(SlowTier::File(&path)).block_tokens(32)).err().unwrap();
    assert_eq!(other.status(), Status::ConfigMismatch, "{other}");
    let nowhere = Store::create(config(SlowTier::File(c"/nowhere/at/all"))).err().unwrap();
    assert_eq!(nowhere.status(), Status::Io, "{nowhere}");
    assert!(nowhere.message().contains("/nowhere/at/all"), "{nowhere}");
}

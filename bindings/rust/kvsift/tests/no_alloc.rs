//! No call of a step allocates.
mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use kvsift::{Cache, Config, Heads, Method, Observation, Policy, Query, Shape, View};
use support::random;

struct Counting;

thread_local! {
    /// Of this thread: the test harness allocates on others.
    static CALLS: Cell<usize> = const { Cell::new(0) };
}

fn calls() -> usize {
    CALLS.with(Cell::get)
}

// SAFETY: hands everything on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        CALLS.with(|calls| calls.set(calls.get() + 1));
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

#[test]
fn a_step_allocates_nothing() {
    let shape = Shape { layers: 1, query_heads: 2, kv_heads: 1, head_dim: 16, max_tokens: 512 };
    let mut policy = Policy::new(
        &Config::new(Method::H2O, shape).dense_layers(0).dense_tokens(kvsift::DENSE_OFF).budget_tokens(96),
    )
    .unwrap();
    let (rows, queries) = (random(1, 512 * 16), random(2, 2 * 16));
    let (mut mass, mut sums) = ([0f32; 2 * 512], [0f32; 2]);
    let mut out = [0f32; 2 * 16];
    let view = View::f32(&rows, 16, 0);
    let before = calls();
    for tokens in 1..=512u32 {
        let new = View::f32(&rows[(tokens as usize - 1) * 16..], 16, 0);
        policy.observe_keys(0, Heads::ALL, tokens - 1, 1, &new, Some(&new)).unwrap();
        let query = Query::new(tokens, View::f32(&queries, 0, 16));
        let mut observation = Observation::masses(512, &mut mass, &mut sums);
        let kept = policy.select_blocks(0, &query).unwrap();
        kept.attend(&query, &Cache::new(tokens, view, view), &mut out, Some(&mut observation)).unwrap();
        policy.observe_attention(0, Heads::ALL, &observation).unwrap();
        policy.advance(1).unwrap();
    }
    policy.stats().unwrap();
    assert_eq!(calls() - before, 0);
    // The counter counts, and a failure allocates its sentence.
    policy.advance(1).unwrap_err();
    assert!(calls() > before);
}

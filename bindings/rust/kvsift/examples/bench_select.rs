//! Select of one layer for a small policy, from Rust: what bindings/bench/select.c times in C.
use std::time::Instant;

use kvsift::{Config, Heads, Method, Policy, Query, Shape, View};

const TOKENS: u32 = 1024;
const DIM: usize = 64;
const ROUNDS: usize = 50;
const CALLS: u32 = 1000;

fn random(state: &mut u32, count: usize) -> Vec<f32> {
    let mut next = || {
        *state = state.wrapping_mul(1664525).wrapping_add(1013904223);
        (*state >> 8) as f32 / (1 << 24) as f32 - 0.5
    };
    (0..count).map(|_| next()).collect()
}

fn main() -> kvsift::Result<()> {
    let mut state = 1;
    let keys = random(&mut state, 2 * TOKENS as usize * DIM);
    let queries = random(&mut state, 4 * DIM);
    let shape = Shape { layers: 1, query_heads: 4, kv_heads: 2, head_dim: DIM as u32, max_tokens: TOKENS };
    let mut policy = Policy::new(&Config::new(Method::Streaming, shape).budget_tokens(192).dense_layers(0))?;
    let view = View::f32(&keys, DIM, TOKENS as usize * DIM);
    policy.observe_keys(0, Heads::ALL, 0, TOKENS, &view, Some(&view))?;
    let (mut best, mut ranges) = (f64::INFINITY, 0);
    for _ in 0..ROUNDS {
        let start = Instant::now();
        for _ in 0..CALLS {
            let query = Query::new(TOKENS, View::f32(&queries, 0, DIM));
            let kept = policy.select_blocks(0, &query)?;
            ranges += kept.ranges(0).map_or(0, <[_]>::len);
        }
        best = best.min(start.elapsed().as_nanos() as f64 / f64::from(CALLS));
    }
    println!("{{\"language\": \"Rust\", \"select_ns\": {best:.1}, \"ranges\": {ranges}}}");
    Ok(())
}

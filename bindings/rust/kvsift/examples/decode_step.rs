//! One decode step over a toy cache: which tokens does kvsift read, and what comes out?
use kvsift::{Cache, Config, Heads, Method, Policy, Query, Shape, Tail, View};

const TOKENS: usize = 2048;
const HEADS: usize = 4;
const KV_HEADS: usize = 2;
const DIM: usize = 64;

fn main() -> kvsift::Result<()> {
    let mut state = 1u32;
    let mut random = |count: usize| -> Vec<f32> {
        let next = |_| {
            state = state.wrapping_mul(1664525).wrapping_add(1013904223);
            (state >> 8) as f32 / (1 << 24) as f32 - 0.5
        };
        (0..count).map(next).collect()
    };
    let (keys, values) = (random(KV_HEADS * TOKENS * DIM), random(KV_HEADS * TOKENS * DIM));
    let queries: Vec<f32> =
        (0..HEADS * DIM).map(|i| 4.0 * keys[(i / DIM / 2 * TOKENS + 1000) * DIM + i % DIM]).collect();

    let shape = Shape {
        layers: 1,
        query_heads: HEADS as u32,
        kv_heads: KV_HEADS as u32,
        head_dim: DIM as u32,
        max_tokens: 2048,
    };
    let config = Config::new(Method::PageStats, shape).budget_tokens(256).dense_layers(0).tail(Tail::Moments);
    let mut policy = Policy::new(&config)?;

    let last = TOKENS - 1;
    fn rows(all: &[f32], first: usize) -> View<'_> {
        View::f32(&all[first * DIM..], DIM, TOKENS * DIM)
    }
    policy.observe_keys(0, Heads::ALL, 0, last as u32, &rows(&keys, 0), Some(&rows(&values, 0)))?; // the prompt ...
    policy.advance(last as u32)?;
    policy.observe_keys(0, Heads::ALL, last as u32, 1, &rows(&keys, last), Some(&rows(&values, last)))?; // ... and the new token

    let query = Query::new(TOKENS as u32, View::f32(&queries, 0, DIM));
    let cache = Cache::new(TOKENS as u32, rows(&keys, 0), rows(&values, 0));
    let mut out = [0f32; HEADS * DIM];
    let kept = policy.select_blocks(0, &query)?;
    kept.attend(&query, &cache, &mut out, None)?;
    for list in 0..kept.lists() {
        let ranges: Vec<String> =
            kept.ranges(list).unwrap_or(&[]).iter().map(|r| format!("{}-{}", r.begin, r.end - 1)).collect();
        println!("list {list} reads {}; output begins {}", ranges.join(" "), out[list * DIM]);
    }
    policy.advance(1)
}

// E0499
//! A part's selection holds until its next select.
use kvsift::*;

fn config() -> Config<'static> {
    Config::new(Method::Full, Shape { layers: 1, query_heads: 2, kv_heads: 2, head_dim: 8, max_tokens: 64 })
}

fn main() {
    let mut policy = Policy::new(&config()).unwrap();
    let mut part = policy.heads_mut(0, 1).unwrap().next().unwrap();
    let queries = [0f32; 16];
    let query = Query::new(1, View::f32(&queries, 8, 8));
    let first = part.select_blocks(&query).unwrap();
    let second = part.select_blocks(&query).unwrap(); // fails
    first.ranges(0);
}

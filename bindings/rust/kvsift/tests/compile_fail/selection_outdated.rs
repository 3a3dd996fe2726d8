// E0499
//! A selection holds until the next select.
use kvsift::*;

fn config() -> Config<'static> {
    Config::new(Method::Full, Shape { layers: 1, query_heads: 1, kv_heads: 1, head_dim: 8, max_tokens: 64 })
}

fn main() {
    let mut policy = Policy::new(&config()).unwrap();
    let queries = [0f32; 8];
    let query = Query::new(1, View::f32(&queries, 8, 8));
    let first = policy.select_blocks(0, &query).unwrap();
    let second = policy.select_blocks(0, &query).unwrap(); // fails
    first.ranges(0);
}

// E0505
//! A selection does not outlive its policy.
use kvsift::*;

fn config() -> Config<'static> {
    Config::new(Method::Full, Shape { layers: 1, query_heads: 1, kv_heads: 1, head_dim: 8, max_tokens: 64 })
}

fn main() {
    let mut policy = Policy::new(&config()).unwrap();
    let queries = [0f32; 8];
    let selection = policy.select_blocks(0, &Query::new(1, View::f32(&queries, 8, 8))).unwrap();
    drop(policy); // fails
    selection.ranges(0);
}

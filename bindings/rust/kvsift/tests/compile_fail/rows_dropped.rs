// E0505
//! Rows outlive the view of them.
use kvsift::*;

fn config() -> Config<'static> {
    Config::new(Method::Full, Shape { layers: 1, query_heads: 1, kv_heads: 1, head_dim: 8, max_tokens: 64 })
}

fn main() {
    let rows = vec![0f32; 64];
    let view = View::f32(&rows, 8, 0);
    drop(rows); // fails
    Cache::new(8, view, view).tokens();
}

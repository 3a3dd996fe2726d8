// E0499
//! A step ends when all parts are gone.
use kvsift::*;

fn config() -> Config<'static> {
    Config::new(Method::Full, Shape { layers: 1, query_heads: 2, kv_heads: 2, head_dim: 8, max_tokens: 64 })
}

fn main() {
    let mut policy = Policy::new(&config()).unwrap();
    let part = policy.heads_mut(0, 1).unwrap().next().unwrap();
    policy.advance(1).unwrap(); // fails
    part.heads();
}

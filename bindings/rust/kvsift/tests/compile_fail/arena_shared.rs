// E0499
//! One arena holds one policy.
use kvsift::*;

fn config() -> Config<'static> {
    Config::new(Method::Full, Shape { layers: 1, query_heads: 1, kv_heads: 1, head_dim: 8, max_tokens: 64 })
}

fn main() {
    let mut memory = vec![0u8; 1 << 20];
    let mut first = Policy::new_in(&config(), &mut memory).unwrap();
    let mut second = Policy::new_in(&config(), &mut memory).unwrap(); // fails
    first.reset().unwrap();
}

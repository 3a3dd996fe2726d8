// E0505
//! A borrowed arena outlives its policy.
use kvsift::*;

fn config() -> Config<'static> {
    Config::new(Method::Full, Shape { layers: 1, query_heads: 1, kv_heads: 1, head_dim: 8, max_tokens: 64 })
}

fn main() {
    let mut memory = vec![0u8; 1 << 20];
    let mut policy = Policy::new_in(&config(), aligned(&mut memory)).unwrap();
    drop(memory); // fails
    policy.reset().unwrap();
}

// E0277
//! Two threads cannot use one policy.
use kvsift::*;

fn config() -> Config<'static> {
    Config::new(Method::Full, Shape { layers: 1, query_heads: 1, kv_heads: 1, head_dim: 8, max_tokens: 64 })
}

fn main() {
    let policy = Policy::new(&config()).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| policy.info()); // fails
    });
}

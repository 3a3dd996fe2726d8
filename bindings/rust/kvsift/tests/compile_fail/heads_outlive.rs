// E0597
//! A thread that nobody waits for cannot have a part.
use kvsift::*;

fn config() -> Config<'static> {
    Config::new(Method::Full, Shape { layers: 1, query_heads: 2, kv_heads: 2, head_dim: 8, max_tokens: 64 })
}

fn main() {
    let mut policy = Policy::new(&config()).unwrap();
    let mut part = policy.heads_mut(0, 1).unwrap().next().unwrap();
    part.heads();
    std::thread::spawn(move || part.predict_next()); // fails
}

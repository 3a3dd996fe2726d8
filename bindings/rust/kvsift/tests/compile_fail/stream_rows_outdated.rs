// E0499
//! What a stream gave out holds until the next push.
use kvsift::*;

fn config() -> Config<'static> {
    Config::new(Method::Full, Shape { layers: 1, query_heads: 1, kv_heads: 1, head_dim: 8, max_tokens: 64 })
}

fn main() {
    let config = balance::StreamConfig::new(balance::Form::Practical, 8, 64).unwrap();
    let mut stream = balance::Stream::new(&config).unwrap();
    let rows = stream.read().unwrap();
    stream.truncate(0).unwrap(); // fails
    rows.tokens();
}

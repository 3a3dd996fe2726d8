// E0505
//! Weights outlive the policies that use them.
use kvsift::*;

fn config() -> Config<'static> {
    Config::new(Method::Full, Shape { layers: 1, query_heads: 1, kv_heads: 1, head_dim: 8, max_tokens: 64 })
}

fn main() {
    let predictor = Predictor::load(&[]).unwrap();
    let config = config().predictor(&predictor);
    let mut policy = Policy::new(&config).unwrap();
    drop(predictor); // fails
    policy.reset().unwrap();
}

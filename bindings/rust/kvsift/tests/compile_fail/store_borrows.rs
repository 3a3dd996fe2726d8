// E0597
//! A store's threads may outlive any borrowed memory.
use kvsift::store::{Config, Shape, SlowTier};

fn main() {
    let shape = Shape { layers: 1, query_heads: 1, kv_heads: 1, head_dim: 8, max_tokens: 64, fast_blocks: 8 };
    let mut memory = vec![0u8; 1 << 20];
    Config::new(shape, SlowTier::Host(&mut memory)).unwrap(); // fails
    memory.clear();
}

// E0308
//! A store brings the blocks of all heads: it does not take the selection of a part, whose other lists other threads write.
use kvsift::*;

fn resolve(store: &mut store::Store, part: &mut PolicyHeads<'_>, query: &Query<'_>) {
    let kept = part.select_blocks(query).unwrap();
    let _ = store.prefetch(0, &kept); // fails
}

fn main() {}

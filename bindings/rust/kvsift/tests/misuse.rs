//! What callers get wrong: an error with a sentence each time, and the handle as it was.
mod support;

use kvsift::{
    aligned, merge_attention, Aligned, BlockTable, Cache, Config, Error, Heads, Method, Observation, Policy,
    Predictor, Query, Shape, Status, View,
};

const SHAPE: Shape = Shape { layers: 1, query_heads: 2, kv_heads: 1, head_dim: 16, max_tokens: 256 };

fn config() -> Config<'static> {
    Config::new(Method::PageStats, SHAPE)
        .dense_layers(0)
        .dense_tokens(kvsift::DENSE_OFF)
        .budget_tokens(128)
        .sink_tokens(16)
        .local_tokens(16)
}

#[track_caller]
fn refused<T>(result: Result<T, Error>, status: Status, words: &str) {
    let error = result.err().expect("the call went through");
    assert_eq!(error.status(), status, "{error}");
    assert!(error.message().contains(words), "{error}");
}

#[test]
fn short_slices_are_refused_before_the_library_sees_them() {
    let mut policy = Policy::new(&config()).unwrap();
    let rows = vec![0.5f32; 256 * 16];
    let view = View::f32(&rows, 16, 0);
    let short = View::f32(&rows[..256 * 16 - 1], 16, 0);
    refused(policy.observe_keys(0, Heads::ALL, 0, 256, &short, Some(&view)), Status::InvalidArgument, "keys");
    refused(
        policy.observe_keys(0, Heads::ALL, 0, 256, &view, Some(&short)),
        Status::InvalidArgument,
        "values",
    );
    let wide = View::f32(&rows, usize::MAX / 8, 0);
    refused(policy.observe_keys(0, Heads::ALL, 0, 2, &wide, Some(&view)), Status::InvalidArgument, "keys");
    policy.observe_keys(0, Heads::ALL, 0, 255, &view, Some(&view)).unwrap();
    policy.advance(255).unwrap();
    policy.observe_keys(0, Heads::ALL, 255, 1, &view, Some(&view)).unwrap();

    let query = Query::new(256, View::f32(&rows, 0, 16));
    let (mut out, mut wrong) = ([0f32; 32], [0f32; 31]);
    let one = [0.5f32; 31];
    refused(
        policy.select_blocks(0, &Query::new(256, View::f32(&one, 0, 16))),
        Status::InvalidArgument,
        "query",
    );
    let kept = policy.select_blocks(0, &query).unwrap();
    let cache = Cache::new(256, view, view);
    refused(kept.attend(&query, &cache, &mut wrong, None), Status::InvalidArgument, "out has 31");
    refused(
        kept.attend(&query, &Cache::new(256, view, short), &mut out, None),
        Status::InvalidArgument,
        "values",
    );
    let (mut max, mut sums) = ([0f32; 31], [0f32; 2]);
    let mut small = Observation::blocks(16, &mut max, None, &mut sums);
    refused(
        kept.attend(&query, &cache, &mut out, Some(&mut small)),
        Status::InvalidArgument,
        "block_max has 31",
    );
    let mut rows_form = Observation::rows(256, &rows, 256, true);
    refused(kept.attend(&query, &cache, &mut out, Some(&mut rows_form)), Status::InvalidArgument, "rows");
    refused(kept.attend_tail(&query, &cache, &mut out, &mut [0.0]), Status::InvalidArgument, "log_sum_exp");
    kept.attend(&query, &cache, &mut out, None).unwrap();
    refused(
        policy.observe_attention(0, Heads::ALL, &Observation::rows(256, &rows[..300], 256, true)),
        Status::InvalidArgument,
        "rows has 300",
    );
    refused(
        policy.observe_attention(0, Heads::ALL, &Observation::rows(256, &rows[..64], 32, true)),
        Status::InvalidArgument,
        "row_stride 32",
    );
    refused(merge_attention(&mut out, 0.0, &wrong, 0.0), Status::InvalidArgument, "b has 31");
}

#[test]
fn block_tables_are_checked_against_the_pages() {
    let mut policy = Policy::new(&config()).unwrap();
    let rows = vec![0.5f32; 64 * 16];
    let view = View::f32(&rows, 16, 0);
    policy.observe_keys(0, Heads::ALL, 0, 64, &view, Some(&view)).unwrap();
    let query = Query::new(64, View::f32(&rows, 0, 16));
    let kept = policy.select_blocks(0, &query).unwrap();
    let mut out = [0f32; 32];
    let paged = View::f32(&rows, 16, 0).paged(16 * 16, 0);
    let mut attend = |table: &[i32], page_tokens| {
        kept.attend(
            &query,
            &Cache::paged(64, paged, paged, BlockTable::shared(table), page_tokens),
            &mut out,
            None,
        )
    };
    attend(&[3, 2, 1, 0], 16).unwrap();
    refused(attend(&[3, 2, 1, 4], 16), Status::InvalidArgument, "cache keys");
    refused(attend(&[3, 2, 1], 16), Status::InvalidArgument, "block table has 3");
    refused(attend(&[3, 2, 1, -1], 16), Status::InvalidArgument, "-1");
    refused(attend(&[3, 2, 1, 0], 0), Status::InvalidArgument, "page_tokens");
}

#[test]
fn arenas_are_checked() {
    let bytes = config().arena_size().unwrap().bytes as usize;
    let mut memory = vec![0u8; bytes + 128];
    let memory = aligned(&mut memory);
    refused(Policy::new_in(&config(), &mut memory[1..]), Status::Misaligned, "");
    refused(Policy::new_in(&config(), &mut memory[..bytes - 1]), Status::ArenaTooSmall, "");
    assert!(Policy::new_in(&config(), &mut memory[..bytes]).is_ok());
    let policy = Policy::new(&config()).unwrap();
    refused(policy.fork_in(&mut memory[..bytes - 1]), Status::ArenaTooSmall, "");
    assert!(policy.fork_in(&mut memory[..bytes]).is_ok());
    let mut small = Aligned::<64>::new();
    refused(Policy::new_in(&config(), &mut small.0), Status::ArenaTooSmall, "");
    assert!(aligned(&mut []).is_empty());
}

#[test]
fn the_order_of_calls_is_checked() {
    let mut policy = Policy::new(&config()).unwrap();
    let rows = vec![0.5f32; 256 * 16];
    let view = View::f32(&rows, 16, 0);
    let query = Query::new(64, View::f32(&rows, 0, 16));
    refused(policy.select_blocks(7, &query), Status::InvalidArgument, "layer is 7");
    refused(policy.observe_keys(0, Heads::ALL, 5, 1, &view, Some(&view)), Status::OutOfOrder, "5");
    refused(policy.advance(1), Status::OutOfOrder, "");
    refused(policy.predict_next(0, Heads::ALL), Status::Unsupported, "");
    let beyond = Heads { first: 0, count: 2 };
    refused(policy.observe_keys(0, beyond, 0, 1, &view, Some(&view)), Status::InvalidArgument, "kv_heads 2");
    let nan = [f32::NAN; 256];
    let bad = View::f32(&nan, 16, 0);
    refused(policy.observe_keys(0, Heads::ALL, 0, 1, &bad, Some(&view)), Status::NotFinite, "keys");
    refused(policy.truncate(1), Status::InvalidArgument, "");
}

#[test]
fn bytes_from_elsewhere_are_not_trusted() {
    let mut policy = Policy::new(&config()).unwrap();
    let mut bytes = vec![0; policy.snapshot_size().unwrap() as usize];
    let written = policy.snapshot_save(&mut bytes).unwrap();
    refused(policy.snapshot_save(&mut bytes[..8]), Status::ArenaTooSmall, "");
    let mut other = Policy::new(&config().budget_tokens(144)).unwrap();
    refused(other.snapshot_load(&bytes[..written]), Status::ConfigMismatch, "");
    refused(policy.snapshot_load(&bytes[..written - 1]), Status::Corrupt, "");
    bytes[written / 2] ^= 1;
    assert!(policy.snapshot_load(&bytes[..written]).is_err());
    refused(policy.snapshot_load(&[]), Status::Corrupt, "");
    refused(Predictor::load(&[]), Status::Corrupt, "");
    assert!(Predictor::load(&[7; 20000]).is_err());
}

#[test]
fn a_policy_moves_between_threads() {
    let mut policy = Policy::new(&config()).unwrap();
    std::thread::spawn(move || policy.reset().unwrap()).join().unwrap();
}

//! Heads of a layer on threads: the bits of one thread, and misuse is answered.
mod support;

use kvsift::{Cache, Config, Heads, Method, Observation, Policy, Query, Shape, Status, Tail, View};
use support::random;

const SHAPE: Shape = Shape { layers: 2, query_heads: 6, kv_heads: 3, head_dim: 16, max_tokens: 256 };
const HEADS: usize = 6;
const GROUP: usize = 2;
const DIM: usize = 16;
const TOKENS: usize = 256;
const PROMPT: usize = 160;
const BLOCKS: usize = TOKENS;

struct Toy {
    keys: Vec<f32>,
    values: Vec<f32>,
    queries: Vec<f32>,
}

impl Toy {
    fn new() -> Toy {
        let size = 3 * TOKENS * DIM;
        Toy { keys: random(1, size), values: random(2, size), queries: random(3, TOKENS * HEADS * DIM) }
    }

    fn rows(rows: &[f32], first: usize) -> View<'_> {
        View::f32(&rows[first * DIM..], DIM, TOKENS * DIM)
    }

    fn cache(&self, tokens: usize) -> Cache<'_> {
        Cache::new(tokens as u32, Toy::rows(&self.keys, 0), Toy::rows(&self.values, 0))
    }

    fn query(&self, tokens: usize, rows: usize) -> Query<'_> {
        let view = View::f32(&self.queries[(tokens - rows) * HEADS * DIM..], HEADS * DIM, DIM);
        Query::new(tokens as u32, view).rows(rows as u32)
    }
}

/// What a layer's step writes, for all heads.
#[derive(PartialEq, Debug, Clone)]
struct Step {
    out: Vec<f32>,
    max: Vec<f32>,
    mass: Vec<f32>,
    sums: Vec<f32>,
}

impl Step {
    fn new() -> Step {
        let (out, blocks) = (vec![0.0; HEADS * DIM], vec![0.0; HEADS * BLOCKS]);
        Step { out, max: blocks.clone(), mass: blocks, sums: vec![0.0; HEADS] }
    }
}

fn prompt(policy: &mut Policy<'_>, toy: &Toy, width: u32) -> Vec<f32> {
    let mut out = vec![0f32; PROMPT * HEADS * DIM];
    let (keys, values) = (Toy::rows(&toy.keys, 0), Toy::rows(&toy.values, 0));
    let (query, cache) = (toy.query(PROMPT, PROMPT), toy.cache(PROMPT));
    for layer in 0..SHAPE.layers {
        let parts = policy.heads_mut(layer, width).unwrap().with_out(PROMPT as u32, &mut out).unwrap();
        assert_eq!(parts.len(), SHAPE.kv_heads.div_ceil(width) as usize);
        std::thread::scope(|threads| {
            for (mut part, mut out) in parts {
                threads.spawn(move || {
                    part.observe_keys(0, PROMPT as u32, &keys, Some(&values)).unwrap();
                    part.prefill_attend(&query, &cache, &mut out).unwrap();
                });
            }
        });
    }
    policy.advance(PROMPT as u32).unwrap();
    out
}

fn step(policy: &mut Policy<'_>, toy: &Toy, at: usize, width: u32) -> Vec<Step> {
    let (keys, values) = (Toy::rows(&toy.keys, at), Toy::rows(&toy.values, at));
    let (query, cache) = (toy.query(at + 1, 1), toy.cache(at + 1));
    let heads = width as usize * GROUP;
    let masses = policy.info().unwrap().needs & kvsift::sys::KVSIFT_NEEDS_MASS != 0 && at % 2 == 1;
    let mut layers = vec![Step::new(); SHAPE.layers as usize];
    for (layer, step) in layers.iter_mut().enumerate() {
        let parts = policy.heads_mut(layer as u32, width).unwrap();
        let out = step.out.chunks_mut(heads * DIM);
        let max = step.max.chunks_mut(heads * BLOCKS);
        let mass = step.mass.chunks_mut(heads * BLOCKS);
        let sums = step.sums.chunks_mut(heads);
        std::thread::scope(|threads| {
            for ((((mut part, out), max), mass), sums) in parts.zip(out).zip(max).zip(mass).zip(sums) {
                threads.spawn(move || {
                    part.observe_keys(at as u32, 1, &keys, Some(&values)).unwrap();
                    let mut observation = match masses {
                        true => Observation::masses(BLOCKS as u32, mass, sums),
                        false => Observation::blocks(BLOCKS as u32, max, Some(mass), sums),
                    };
                    let kept = part.select_blocks(&query).unwrap();
                    assert!(kept.lists().all(|list| !kept.ranges(list).unwrap().is_empty()));
                    assert!(kept.ranges(kept.lists().end).is_none() && kept.blocks(99).is_none());
                    kept.attend(&query, &cache, out, Some(&mut observation)).unwrap();
                    assert_eq!(observation.tokens() as usize, at + 1);
                    part.observe_attention(&observation).unwrap();
                });
            }
        });
    }
    policy.advance(1).unwrap();
    layers
}

#[test]
fn threads_give_the_bits_of_one() {
    let toy = Toy::new();
    for method in Method::ALL {
        let mut config = Config::new(*method, SHAPE).dense_layers(1).budget_tokens(96).sink_tokens(8);
        config = config.local_tokens(if *method == Method::Streaming { 0 } else { 16 });
        if matches!(method, Method::PageStats | Method::Quest) {
            config = config.tail(Tail::Moments);
        }
        let run = |width: u32| {
            let mut policy = Policy::new(&config).unwrap();
            let mut steps = Vec::new();
            let out = prompt(&mut policy, &toy, width);
            for at in PROMPT..PROMPT + 6 {
                steps.push(step(&mut policy, &toy, at, width));
            }
            let mut snapshot = vec![0; policy.snapshot_size().unwrap() as usize];
            policy.snapshot_save(&mut snapshot).unwrap();
            (out, steps, snapshot)
        };
        let one = run(SHAPE.kv_heads);
        assert!(one.0.iter().all(|x| x.is_finite()) && one.0[HEADS * DIM..].iter().any(|x| *x != 0.0));
        for width in [1, 2] {
            assert!(run(width) == one, "{}: parts of {width} heads", method.name());
        }
    }
}

#[test]
fn a_part_refuses_what_is_not_its_own() {
    let toy = Toy::new();
    let mut policy =
        Policy::new(&Config::new(Method::PageStats, SHAPE).dense_layers(0).budget_tokens(96)).unwrap();
    let refused = |result: kvsift::Result<()>, status: Status, words: &str| {
        let error = result.expect_err(words);
        assert_eq!(error.status(), status, "{error}");
        assert!(error.message().contains(words), "{error}");
    };
    let invalid = Status::InvalidArgument;
    refused(policy.heads_mut(0, 0).map(drop), invalid, "0 KV heads");
    refused(policy.heads_mut(2, 1).map(drop), invalid, "layer is 2");
    refused(policy.heads_mut(0, 1).unwrap().with_out(2, &mut [0.0; 7]).map(drop), invalid, "out has 7");

    let (keys, cache, query) = (Toy::rows(&toy.keys, 0), toy.cache(128), toy.query(128, 1));
    let (mut out, mut other) = (vec![0f32; HEADS * DIM], vec![0f32; HEADS * DIM]);
    let mut parts = policy.heads_mut(0, 2).unwrap().with_out(1, &mut out).unwrap();
    let ((mut first, mut first_out), (mut last, mut last_out)) =
        (parts.next().unwrap(), parts.next().unwrap());
    assert!(parts.next().is_none());
    assert_eq!((first.query_heads(), last.query_heads()), (0..4, 4..6));
    assert_eq!((last.heads(), last.layer()), (Heads { first: 2, count: 1 }, 0));
    refused(first.prefill_attend(&query, &cache, &mut last_out), invalid, "other heads");
    refused(last.prefill_attend(&query.rows(3), &cache, &mut first_out), invalid, "other heads");
    refused(first.prefill_attend(&query.rows(3), &cache, &mut first_out), invalid, "out has 96");
    first.observe_keys(0, 128, &keys, Some(&keys)).unwrap();
    refused(first.observe_keys(0, 128, &keys, Some(&keys)), Status::OutOfOrder, "layer 0, KV heads 0 .. 2");
    let kept = first.select_blocks(&query).unwrap();
    refused(kept.attend(&query, &cache, &mut other, None), invalid, "out has 96");
    refused(kept.attend_tail(&query, &cache, &mut other[..64], &mut [0.0; 6]), invalid, "log_sum_exp has 6");
    let (mut max, mut sums) = ([0f32; HEADS * 8], [0f32; HEADS]);
    let mut wide = Observation::blocks(8, &mut max, None, &mut sums);
    refused(kept.attend(&query, &cache, &mut other[..64], Some(&mut wide)), invalid, "block_max has 48");
    kept.attend(&query.heads(Heads { first: 2, count: 1 }), &cache, &mut other[..64], None).unwrap();
    refused(last.select_blocks(&query).map(drop), Status::OutOfOrder, "KV heads 2 .. 3");
    drop(parts);
    assert!(policy.last_error().contains("kvsift_observe_keys comes first"), "{}", policy.last_error());
}

#[test]
fn a_part_refuses_output_of_a_policy_of_another_shape() {
    let toy = Toy::new();
    let (cache, query) = (toy.cache(128), toy.query(128, 1));
    // Two rows of half the heads are as long as one row.
    let half = Shape { query_heads: SHAPE.query_heads / 2, ..SHAPE };
    let mut whole = Policy::new(&Config::new(Method::Full, SHAPE)).unwrap();
    let mut other = Policy::new(&Config::new(Method::Full, half)).unwrap();
    let mut out = vec![0f32; HEADS * DIM];
    let (_, mut first_out) = other.heads_mut(0, 1).unwrap().with_out(2, &mut out).unwrap().next().unwrap();
    let mut first = whole.heads_mut(0, 1).unwrap().next().unwrap();
    let error = first.prefill_attend(&query, &cache, &mut first_out).unwrap_err();
    assert!(error.message().contains("another shape"), "{error}");
    assert_eq!(out, vec![0f32; HEADS * DIM]);
}

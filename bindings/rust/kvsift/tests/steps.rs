//! Every method over a toy cache, through everything an engine does.
mod support;

use kvsift::{
    BlockTable, Cache, Config, Heads, Method, Observation, Policy, Query, Shape, SnapKvProfile, Status, Tail,
    Type, View,
};
use support::random;

const SHAPE: Shape = Shape { layers: 2, query_heads: 4, kv_heads: 2, head_dim: 32, max_tokens: 1024 };
const PROMPT: usize = 512;
const TOKENS: usize = 1024;
const DIM: usize = 32;
const BLOCKS: usize = TOKENS; // enough for methods with blocks of one token

struct Toy {
    keys: Vec<f32>,
    values: Vec<f32>,
    queries: Vec<f32>,
}

impl Toy {
    fn new() -> Toy {
        let size = 2 * TOKENS * DIM;
        Toy { keys: random(1, size), values: random(2, size), queries: random(3, TOKENS * 4 * DIM) }
    }

    fn view(rows: &[f32], first: usize) -> View<'_> {
        View::f32(&rows[first * DIM..], DIM, TOKENS * DIM)
    }

    fn cache(&self, tokens: usize) -> Cache<'_> {
        Cache::new(tokens as u32, Toy::view(&self.keys, 0), Toy::view(&self.values, 0))
    }

    fn query(&self, tokens: usize, rows: usize) -> Query<'_> {
        let view = View::f32(&self.queries[(tokens - rows) * 4 * DIM..], 4 * DIM, DIM);
        Query::new(tokens as u32, view).rows(rows as u32)
    }
}

fn prompt(policy: &mut Policy<'_>, toy: &Toy) {
    let mut out = vec![0f32; PROMPT * 4 * DIM];
    let (keys, values) = (Toy::view(&toy.keys, 0), Toy::view(&toy.values, 0));
    for layer in 0..2 {
        policy.observe_keys(layer, Heads::ALL, 0, PROMPT as u32, &keys, Some(&values)).unwrap();
        policy.prefill_attend(layer, &toy.query(PROMPT, PROMPT), &toy.cache(PROMPT), &mut out).unwrap();
    }
    policy.advance(PROMPT as u32).unwrap();
}

/// One decode step; returns the output.
fn step(policy: &mut Policy<'_>, toy: &Toy, at: usize) -> Vec<f32> {
    let mut out = vec![0f32; 2 * 4 * DIM];
    let (mut max, mut mass, mut sums) = (vec![0f32; 4 * BLOCKS], vec![0f32; 4 * BLOCKS], [0f32; 4]);
    let (keys, values) = (Toy::view(&toy.keys, at), Toy::view(&toy.values, at));
    let query = toy.query(at + 1, 1);
    for layer in 0..2u32 {
        policy.observe_keys(layer, Heads::ALL, at as u32, 1, &keys, Some(&values)).unwrap();
        let mut observation = Observation::blocks(BLOCKS as u32, &mut max, Some(&mut mass), &mut sums);
        let selection = policy.select_blocks(layer, &query).unwrap();
        for list in 0..selection.lists() {
            assert!(!selection.ranges(list).unwrap().is_empty());
        }
        assert!(selection.ranges(selection.lists()).is_none());
        let part = &mut out[layer as usize * 4 * DIM..][..4 * DIM];
        selection.attend(&query, &toy.cache(at + 1), part, Some(&mut observation)).unwrap();
        assert_eq!(observation.tokens() as usize, at + 1);
        policy.observe_attention(layer, Heads::ALL, &observation).unwrap();
    }
    policy.advance(1).unwrap();
    out
}

/// The same, learnt from at once.
fn step_at_once(policy: &mut Policy<'_>, toy: &Toy, at: usize) -> Vec<f32> {
    let mut out = vec![0f32; 2 * 4 * DIM];
    let (keys, values) = (Toy::view(&toy.keys, at), Toy::view(&toy.values, at));
    let query = toy.query(at + 1, 1);
    for (layer, part) in out.chunks_mut(4 * DIM).enumerate() {
        policy.observe_keys(layer as u32, Heads::ALL, at as u32, 1, &keys, Some(&values)).unwrap();
        let mut selection = policy.select_blocks(layer as u32, &query).unwrap();
        selection.decode_attend(&query, &toy.cache(at + 1), part).unwrap();
    }
    policy.advance(1).unwrap();
    out
}

#[test]
fn every_method_steps_forks_and_restores() {
    let toy = Toy::new();
    for method in Method::ALL {
        let config = Config::new(*method, SHAPE)
            .dense_layers(0)
            .dense_tokens(kvsift::DENSE_OFF)
            .budget_tokens(192)
            .rollback_tokens(16);
        let mut policy = match Policy::new(&config) {
            Err(e) if *method == Method::Balance && e.status() == Status::Unsupported => {
                println!("skipped: {e}");
                continue;
            }
            made => made.unwrap(),
        };
        prompt(&mut policy, &toy);
        for i in 0..4 {
            step(&mut policy, &toy, PROMPT + i);
        }
        let mut fork = policy.fork().unwrap();
        let mut bytes = vec![0; policy.snapshot_size().unwrap() as usize];
        let written = policy.snapshot_save(&mut bytes).unwrap();
        let mut restored = Policy::new(&config).unwrap();
        restored.snapshot_load(&bytes[..written]).unwrap();
        let mut at_once = policy.fork().unwrap();
        let wanted = step(&mut policy, &toy, PROMPT + 4);
        assert_eq!(step_at_once(&mut at_once, &toy, PROMPT + 4), wanted, "{}", method.name());
        assert_eq!(step_at_once(&mut at_once, &toy, PROMPT + 5), step(&mut policy, &toy, PROMPT + 5));
        assert!(wanted.iter().all(|x| x.is_finite()));
        assert_eq!(step(&mut fork, &toy, PROMPT + 4), wanted, "{}", method.name());
        assert_eq!(step(&mut restored, &toy, PROMPT + 4), wanted, "{}", method.name());
        policy.truncate(PROMPT as u32 + 4).unwrap();
        assert_eq!(step(&mut policy, &toy, PROMPT + 4), wanted, "{}", method.name());
        let info = policy.info().unwrap();
        assert_eq!(
            (info.tokens as usize, info.arena_bytes),
            (PROMPT + 5, config.arena_size().unwrap().bytes)
        );
        assert!(policy.stats().unwrap().tokens_total > 0 || *method == Method::Full);
        policy.reset().unwrap();
        assert_eq!(policy.info().unwrap().tokens, 0);
    }
}

#[test]
fn a_tail_apart_and_merged_is_the_whole() {
    let toy = Toy::new();
    let config = Config::new(Method::PageStats, SHAPE)
        .dense_layers(0)
        .dense_tokens(kvsift::DENSE_OFF)
        .budget_tokens(192)
        .tail(Tail::Moments);
    let mut policy = Policy::new(&config).unwrap();
    prompt(&mut policy, &toy);
    let query = toy.query(PROMPT + 1, 1);
    let (keys, values) = (Toy::view(&toy.keys, PROMPT), Toy::view(&toy.values, PROMPT));
    policy.observe_keys(0, Heads::ALL, PROMPT as u32, 1, &keys, Some(&values)).unwrap();
    let selection = policy.select_blocks(0, &query).unwrap();
    assert_eq!(selection.tail(), Tail::Moments);
    let (mut both, mut tail, mut sums) = (vec![0f32; 4 * DIM], vec![0f32; 4 * DIM], [0f32; 4]);
    selection.attend(&query, &toy.cache(PROMPT + 1), &mut both, None).unwrap();
    selection.attend_tail(&query, &toy.cache(PROMPT + 1), &mut tail, &mut sums).unwrap();
    let ranges = selection.ranges(0).unwrap().to_vec();
    let (mut kept, mut sum) = exact(&toy, &ranges, &toy.queries[PROMPT * 4 * DIM..][..DIM]);
    sum = kvsift::merge_attention(&mut kept, sum, &tail[..DIM], sums[0]).unwrap();
    assert!(sum > sums[0]);
    for (a, b) in kept.iter().zip(&both) {
        assert!((a - b).abs() < 1e-4, "{a} {b}");
    }
}

/// Plain softmax attention over ranges of the first KV head, and its log-sum-exp.
fn exact(toy: &Toy, ranges: &[kvsift::Range], query: &[f32]) -> (Vec<f32>, f32) {
    let (mut out, mut sum) = (vec![0f32; DIM], 0f32);
    for token in ranges.iter().flat_map(|r| r.begin as usize..r.end as usize) {
        let logit: f32 = toy.keys[token * DIM..][..DIM].iter().zip(query).map(|(a, b)| a * b).sum();
        let share = (logit / (DIM as f32).sqrt()).exp();
        sum += share;
        out.iter_mut().zip(&toy.values[token * DIM..]).for_each(|(o, v)| *o += share * v);
    }
    out.iter_mut().for_each(|o| *o /= sum);
    (out, sum.ln())
}

#[test]
fn pages_and_halves_are_read_where_they_lie() {
    let toy = Toy::new();
    // Pages of 32 tokens in reverse order, bf16.
    let half = |rows: &[f32]| -> Vec<u16> {
        let mut pages = vec![0u16; rows.len()];
        for (i, x) in rows.iter().enumerate() {
            let (head, token, c) = (i / DIM / TOKENS, i / DIM % TOKENS, i % DIM);
            let page = TOKENS / 32 - 1 - token / 32;
            pages[((page * 32 + token % 32) * 2 + head) * DIM + c] = (x.to_bits() >> 16) as u16;
        }
        pages
    };
    let widen =
        |rows: &[f32]| rows.iter().map(|x| f32::from_bits(x.to_bits() >> 16 << 16)).collect::<Vec<_>>();
    let (keys, values) = (half(&toy.keys), half(&toy.values));
    let rounded = Toy { keys: widen(&toy.keys), values: widen(&toy.values), queries: toy.queries.clone() };
    let table: Vec<i32> = (0..(TOKENS / 32) as i32).rev().collect();
    let table = BlockTable::shared(&table);
    let view = |rows| View::bf16(rows, 2 * DIM, DIM).paged(32 * 2 * DIM, 0);
    let paged = Cache::paged(TOKENS as u32, view(&keys), view(&values), table, 32);
    let mut policy = Policy::new(&Config::new(Method::Full, SHAPE)).unwrap();
    let (mut a, mut b) = (vec![0f32; 4 * DIM], vec![0f32; 4 * DIM]);
    let query = toy.query(TOKENS, 1);
    let (keys, values) = (Toy::view(&rounded.keys, 0), Toy::view(&rounded.values, 0));
    for layer in 0..2 {
        policy.observe_keys(layer, Heads::ALL, 0, TOKENS as u32, &keys, Some(&values)).unwrap();
    }
    let selection = policy.select_blocks(1, &query).unwrap();
    selection.attend(&query, &paged, &mut a, None).unwrap();
    selection.attend(&query, &rounded.cache(TOKENS), &mut b, None).unwrap();
    assert_eq!(a, b);
}

#[test]
fn configurations_that_cannot_be_are_refused() {
    let status = |config: Config<'_>| Policy::new(&config).err().map(|e| e.status());
    let config = |method| Config::new(method, SHAPE);
    assert_eq!(status(config(Method::Quest).block_tokens(0)), Some(Status::InvalidArgument));
    assert_eq!(status(config(Method::Ema).moments_type(Type::Bf16)), Some(Status::InvalidArgument));
    assert_eq!(
        status(Config::new(Method::Full, Shape { head_dim: 0, ..SHAPE })),
        Some(Status::InvalidArgument)
    );
    assert!(config(Method::SnapKv).snapkv(SnapKvProfile::W8K7Max).is_ok());
    assert!(config(Method::AttentionPredictor).predictor_fast().is_ok());
}

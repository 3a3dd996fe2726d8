//! BalanceKV: the published implementation's choices, from the files of tests/conformance/balance_test.c, and streams.
mod support;

use kvsift::balance::{self, Config, Form, Stream, StreamConfig, Weighted, Weights};
use kvsift::{aligned, Cache, Status, View};
use support::{random, tree, Array};

struct Case {
    name: &'static str,
    gamma: f32,
    temperature: f32,
    halvings: u32,
    group: u32,
}

const fn case(name: &'static str, gamma: f32, temperature: f32, halvings: u32, group: u32) -> Case {
    Case { name, gamma, temperature, halvings, group }
}

const CASES: [Case; 4] = [
    case("halve_once", 4.0, 0.1, 1, 128),
    case("ragged", 0.05, 0.5, 2, 128),
    case("quarter", 4.0, 1.0, 2, 256),
    case("small_gamma", 0.002, 0.1, 2, 256),
];

struct Golden {
    keys: Array,
    values: Array,
    uniforms: Vec<Array>,
    kept: Array,
    weights: Array,
}

fn read(c: &Case) -> Option<Golden> {
    ["tests/conformance/data/balancekv", "../shared/golden/balancekv"].iter().find_map(|root| {
        let array = |name: &str| Array::read(&tree().join(root).join(c.name).join(format!("{name}.npy")));
        Some(Golden {
            keys: array("keys")?,
            values: array("values")?,
            uniforms: (0..c.halvings).map(|t| array(&format!("uniforms_{t}"))).collect::<Option<_>>()?,
            kept: array("kept_index")?,
            weights: array("weights")?,
        })
    })
}

fn check_head(c: &Case, g: &Golden, head: usize) {
    let [heads, tokens, dim] = g.keys.shape[..] else { panic!("{}: keys have no three axes", c.name) };
    let uniforms: Vec<f32> = g
        .uniforms
        .iter()
        .flat_map(|u| {
            let all = u.f32();
            let size = all.len() / heads;
            all[head * size..][..size].to_vec()
        })
        .collect();
    let config = Config::new(Form::Practical, dim as u32)
        .unwrap()
        .halvings(c.halvings)
        .group_tokens(c.group)
        .gamma(c.gamma)
        .temperature(c.temperature)
        .weights(Weights::Published)
        .uniforms(&uniforms);
    let (keys, values) = (g.keys.f32(), g.values.f32());
    let cache =
        Cache::new(tokens as u32, View::f32(&keys, dim, tokens * dim), View::f32(&values, dim, tokens * dim));
    let mut scratch = vec![0; config.scratch_size(tokens as u32).unwrap() as usize + 63];
    let (mut index, mut weight) = (vec![0u32; tokens], vec![0f32; tokens]);
    let mut stats = balance::stats();
    let (range, scratch) = (0..tokens as u32, aligned(&mut scratch));
    let count = config
        .compress(&cache, head as u32, range, scratch, &mut index, &mut weight, Some(&mut stats))
        .unwrap();

    let expected = g.kept.shape[1];
    assert_eq!(count, expected);
    assert!(stats.tokens > 0);
    let mut wanted = vec![0f32; tokens];
    for (i, token) in g.kept.usize()[head * expected..][..expected].iter().enumerate() {
        wanted[*token] = g.weights.f32()[head * expected + i];
    }
    let mut got = vec![0f32; tokens];
    for (token, w) in index[..count].iter().zip(&weight) {
        got[*token as usize] = *w;
    }
    assert_eq!(got, wanted, "{} head {head}", c.name);
}

#[test]
fn compress_follows_the_published_choices() {
    for c in &CASES {
        match read(c) {
            Some(g) => (0..g.keys.shape[0]).for_each(|head| check_head(c, &g, head)),
            None => println!("skipped {}: neither copied nor beside the tree", c.name),
        }
    }
}

#[test]
fn a_set_of_all_tokens_attends_like_softmax() {
    let (keys, values, query) = (random(1, 64 * 8), random(2, 64 * 8), random(3, 8));
    let cache = Cache::new(64, View::f32(&keys, 8, 0), View::f32(&values, 8, 0));
    let (index, weight): (Vec<u32>, Vec<f32>) = (0..64).map(|i| (i, 1.0)).unzip();
    let all = Weighted { index: &index, weight: &weight };
    let mut out = [0f32; 8];
    balance::attend(1.0, &query, &cache, 0, all, None, &mut out).unwrap();
    let shares: Vec<f32> =
        keys.chunks(8).map(|k| k.iter().zip(&query).map(|(a, b)| a * b).sum::<f32>().exp()).collect();
    for (c, got) in out.iter().enumerate() {
        let wanted = (0..64).map(|i| shares[i] * values[i * 8 + c]).sum::<f32>() / shares.iter().sum::<f32>();
        assert!((got - wanted).abs() < 1e-5, "{got} {wanted}");
    }
    let beyond = Weighted { index: &[64], weight: &[1.0] };
    let error = balance::attend(1.0, &query, &cache, 0, beyond, None, &mut out).unwrap_err();
    assert_eq!(error.status(), Status::InvalidArgument);
    assert!(error.message().contains("64"), "{error}");
}

#[test]
fn a_stream_is_the_same_however_it_is_pushed_forked_or_restored() {
    let config = StreamConfig::new(Form::Practical, 8, 4096).unwrap().batch_tokens(64).rollback_batches(2);
    let (keys, values) = (random(4, 1000 * 8), random(5, 1000 * 8));
    let mut whole = Stream::new(&config).unwrap();
    whole.push(&View::f32(&keys, 8, 0), &View::f32(&values, 8, 0), 0, 1000).unwrap();
    let mut parts = Stream::new(&config).unwrap();
    for i in (0..1000).step_by(50) {
        let (k, v) = (View::f32(&keys[i * 8..], 8, 0), View::f32(&values[i * 8..], 8, 0));
        parts.push(&k, &v, 0, 50).unwrap();
    }
    let mut bytes = vec![0; parts.snapshot_size().unwrap() as usize];
    let written = parts.snapshot_save(&mut bytes).unwrap();
    let mut restored = Stream::new(&config).unwrap();
    restored.snapshot_load(&bytes[..written]).unwrap();
    let mut copy = restored.fork().unwrap();
    let seen = |stream: &mut Stream<'_>| {
        let rows = stream.read().unwrap();
        let mut out = [0f32; 8];
        balance::attend(
            0.0,
            &keys[..8],
            &rows.cache(),
            0,
            rows.numerator(),
            Some(rows.denominator()),
            &mut out,
        )
        .unwrap();
        (rows.tokens().to_vec(), rows.numerator().index.to_vec(), out)
    };
    let first = seen(&mut whole);
    assert!(first.1.len() < 1000 && !first.1.is_empty());
    for stream in [&mut parts, &mut restored, &mut copy] {
        assert_eq!(seen(stream), first);
    }
    assert_eq!(whole.count().unwrap().0, 1000);
    whole.truncate(990).unwrap();
    assert_eq!(whole.count().unwrap().0, 990);
    assert_eq!(whole.truncate(1).unwrap_err().status(), Status::Rollback);
    assert!(whole.stats().unwrap().tokens > 0);
}

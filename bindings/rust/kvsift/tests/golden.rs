//! The published AttentionPredictor's own runs: what tests/conformance/attention_predictor_policy_test.c checks, from the
//! same files.
mod support;

use kvsift::{Config, Heads, Method, Observation, Policy, Predictor, Query, Shape};
use std::path::PathBuf;
use support::{tree, Array};

const BLOCK: usize = 16;
const SINK: usize = 64;
const PROMPT_ROWS: usize = 64;
const MAX_TOKENS: usize = 2048;

struct Case {
    name: &'static str,
    weights: &'static str,
    heads: usize,
    prompt: usize,
    steps: usize,
    budget: u32,
    period: u32,
}

const fn case(
    name: &'static str,
    heads: usize,
    prompt: usize,
    steps: usize,
    budget: u32,
    period: u32,
) -> Case {
    Case { name, weights: "random_weights", heads, prompt, steps, budget, period }
}

const CASES: [Case; 6] = [
    case("random_base", 2, 700, 40, 320, 5),
    case("random_growing", 2, 160, 70, 192, 5),
    case("random_no_calibration", 1, 513, 24, 256, 0),
    case("random_short", 1, 90, 48, 256, 5),
    Case { weights: "published_weights", ..case("published_base", 4, 1000, 48, 384, 5) },
    Case { weights: "published_weights", ..case("published_period_3", 2, 600, 30, 256, 3) },
];

struct Golden {
    prefill_logits: Vec<f32>,
    decode_logits: Vec<f32>,
    predicted: Vec<f32>,
    kept: Vec<bool>,
    lens: Vec<usize>,
    predicted_cols: Vec<usize>,
    weights: Vec<u8>,
}

/// Copied cases lie in the tree; the published ones only beside it.
fn folder(name: &str) -> PathBuf {
    let root = if name.starts_with("random") { "tests/conformance/data" } else { "../shared/golden" };
    tree().join(root).join("attention_predictor").join(name)
}

impl Golden {
    fn read(c: &Case) -> Option<Golden> {
        let array = |name: &str| Array::read(&folder(c.name).join(name).with_extension("npy"));
        Some(Golden {
            prefill_logits: array("prefill_logits")?.f32(),
            decode_logits: array("decode_logits")?.f32(),
            predicted: array("predicted")?.f32(),
            kept: array("kept_tokens")?.bool(),
            lens: array("lens")?.usize(),
            predicted_cols: array("predicted_cols")?.usize(),
            weights: weights(&folder(c.weights))?,
        })
    }

    /// Where the entries of a head and step lie in a flat array of `counts[t]` entries for each head of step t.
    fn at(c: &Case, counts: &[usize], head: usize, step: usize) -> std::ops::Range<usize> {
        let start = counts[..step].iter().sum::<usize>() * c.heads + head * counts[step];
        start..start + counts[step]
    }
}

/// The six tensors as tools/convert_predictor.py writes them to a file.
fn weights(folder: &std::path::Path) -> Option<Vec<u8>> {
    let mut values = Vec::new();
    for name in ["conv1", "conv2", "conv3"] {
        for part in ["weight", "bias"] {
            values.extend(Array::read(&folder.join(format!("{name}.{part}.npy")))?.f32());
        }
    }
    let body: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    let mut hash = 0xcbf29ce484222325u64;
    let words = body.chunks_exact(8);
    let rest = words.remainder().to_vec();
    for word in words {
        hash = (hash ^ u64::from_le_bytes(word.try_into().unwrap())).wrapping_mul(0x100000001b3);
        hash ^= hash >> 32;
    }
    for byte in rest {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x100000001b3);
    }
    let mut file = b"KVSIFTPW\x01\0\0\0".to_vec();
    file.extend((values.len() as u32).to_le_bytes());
    file.extend(hash.to_le_bytes());
    file.extend(body);
    Some(file)
}

fn softmax(logits: &[f32], kept: Option<&[bool]>, row: &mut [f32]) {
    let seen = |t: usize| kept.map_or(true, |k| k[t]);
    let top = (0..row.len()).filter(|t| seen(*t)).map(|t| f64::from(logits[t])).fold(f64::MIN, f64::max);
    let sum: f64 = (0..row.len()).filter(|t| seen(*t)).map(|t| (f64::from(logits[t]) - top).exp()).sum();
    for (t, share) in row.iter_mut().enumerate() {
        *share = if seen(t) { ((f64::from(logits[t]) - top).exp() / sum) as f32 } else { 0.0 };
    }
}

fn prefill(policy: &mut Policy<'_>, c: &Case, g: &Golden, rows: &mut [f32]) {
    for r in 0..PROMPT_ROWS {
        let tokens = c.prompt - PROMPT_ROWS + r + 1;
        for head in 0..c.heads {
            let logits = &g.prefill_logits[(head * PROMPT_ROWS + r) * c.prompt..];
            softmax(logits, None, &mut rows[head * MAX_TOKENS..][..tokens]);
        }
        let observation = Observation::rows(tokens as u32, rows, MAX_TOKENS, true);
        policy.observe_attention(0, Heads::ALL, &observation).unwrap();
    }
    policy.advance(c.prompt as u32).unwrap();
}

/// What differs from the golden choice must be as good as tied with its weakest block.
fn check_choice(c: &Case, g: &Golden, kept: &[bool], head: usize, step: usize) {
    let expected = &g.kept[Golden::at(c, &g.lens, head, step)];
    let scores = &g.predicted[Golden::at(c, &g.predicted_cols, head, step)];
    let left = SINK / BLOCK;
    let chosen = |j: &usize| expected[(left + j) * BLOCK];
    let cut = (0..scores.len()).filter(chosen).map(|j| scores[j]).fold(f32::INFINITY, f32::min);
    let scale = scores.iter().fold(0f32, |m, s| m.max(s.abs()));
    for t in (0..g.lens[step]).filter(|t| kept[*t] != expected[*t]) {
        let score = (t / BLOCK).checked_sub(left).and_then(|j| scores.get(j));
        let tied = score.is_some_and(|s| (s - cut).abs() <= 2e-5 * scale);
        assert!(tied, "{} head {head} step {step}: token {t} differs", c.name);
    }
}

fn run_step(policy: &mut Policy<'_>, c: &Case, g: &Golden, step: usize, rows: &mut [f32]) {
    let tokens = g.lens[step];
    let full = c.period != 0 && (step as u32 + 1) % c.period == 0;
    let selection = policy.select_blocks(0, &Query::unseen(tokens as u32)).unwrap();
    assert_eq!(selection.calibration(), full);
    assert_eq!(selection.everything(), tokens as u32 <= c.budget);
    for head in 0..c.heads {
        if !selection.everything() {
            let mut kept = vec![false; tokens];
            for range in selection.ranges(head).unwrap() {
                kept[range.begin as usize..range.end as usize].fill(true);
            }
            check_choice(c, g, &kept, head, step);
        }
        let at = Golden::at(c, &g.lens, head, step);
        let kept = if full { None } else { Some(&g.kept[at.clone()]) };
        softmax(&g.decode_logits[at], kept, &mut rows[head * MAX_TOKENS..][..tokens]);
    }
    policy
        .observe_attention(0, Heads::ALL, &Observation::rows(tokens as u32, rows, MAX_TOKENS, full))
        .unwrap();
    if step % 2 == 0 {
        policy.predict_next(0, Heads::ALL).unwrap();
    }
    policy.advance(1).unwrap();
}

#[test]
fn attention_predictor_follows_the_published_runs() {
    for c in &CASES {
        let Some(g) = Golden::read(c) else {
            assert!(!c.name.starts_with("random") || !tree().join("tests").is_dir(), "{} is missing", c.name);
            println!("skipped {}: no golden data", c.name);
            continue;
        };
        let predictor = Predictor::load(&g.weights).unwrap();
        for kv_heads in [c.heads, 1] {
            let query_heads = c.heads as u32;
            let shape =
                Shape { layers: 1, query_heads, kv_heads: kv_heads as u32, head_dim: 8, max_tokens: 2048 };
            let config = Config::new(Method::AttentionPredictor, shape)
                .dense_layers(0)
                .dense_tokens(kvsift::DENSE_OFF)
                .budget_tokens(c.budget)
                .calibration_period(c.period)
                .calibration_dense(false)
                .predictor(&predictor);
            let mut policy = Policy::new(&config).unwrap();
            let mut rows = vec![0f32; c.heads * MAX_TOKENS];
            prefill(&mut policy, c, &g, &mut rows);
            for step in 0..c.steps {
                run_step(&mut policy, c, &g, step, &mut rows);
            }
        }
    }
}

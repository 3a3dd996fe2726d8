"""Train the example language model: text mixed with generated long-context tasks.

One run is one phase (a context length and a mix); the next continues with --resume. The recipe
of the shipped model is in examples/model/README.md. Batches depend on the seed and the step
alone, so a run that was interrupted goes on as if it had not been; SIGTERM saves and ends.
"""

from __future__ import annotations

import missing  # noqa: F401

import argparse
import json
import os
import pickle
import queue
import signal
import sys
import threading
import time
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import sentencepiece

import corpus
import model
import optimizer
from tasks import Sequence, TaskMaker


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("text", type=Path, help="folder of .txt files")
    parser.add_argument("tokenizer", type=Path, help="SentencePiece .model file")
    parser.add_argument("output", type=Path, help="folder for checkpoint and log")
    parser.add_argument("--resume", action="store_true", help="continue output/checkpoint.pkl")
    parser.add_argument("--seed", type=int, default=1)
    shape = parser.add_argument_group("model shape (ignored with --resume)")
    shape.add_argument("--width", type=int, default=128)
    shape.add_argument("--layers", type=int, default=6)
    shape.add_argument("--heads", type=int, default=4)
    shape.add_argument("--kv-heads", type=int, default=2)
    shape.add_argument("--head-dim", type=int, default=32)
    shape.add_argument("--hidden", type=int, default=352)
    phase = parser.add_argument_group("phase")
    phase.add_argument("--length", type=int, default=256, help="context length")
    phase.add_argument("--batch", type=int, default=16, help="sequences a step")
    phase.add_argument("--micro", type=int, default=8, help="sequences at once")
    phase.add_argument("--until", type=int, default=1000, help="last step of the phase")
    phase.add_argument("--rate", type=float, default=4e-3, help="learning rate at its start")
    phase.add_argument("--rate-end", type=float, default=None, help="and at its end (linear)")
    phase.add_argument("--warmup", type=int, default=50, help="steps, at the very beginning only")
    phase.add_argument("--mix", type=float, nargs=4, default=[0.3, 0.1, 0.4, 0.2],
                       metavar=("TEXT", "REPEAT", "INTERLEAVED", "HAYSTACK"))
    phase.add_argument("--text-weight", type=float, default=0.4,
                       help="loss weight of text in tasks; 2.5 times that elsewhere")
    phase.add_argument("--pending", type=int, default=4, help="most facts waiting at once")
    phase.add_argument("--filler", type=float, default=0.3, help="share of text between facts")
    phase.add_argument("--similar", type=float, default=0.0, help="share of look-alike keys")
    phase.add_argument("--chains", type=float, default=0.0)
    phase.add_argument("--pointers", type=float, default=0.0,
                       help="weight of the loss that shows one head where answers stand")
    parser.add_argument("--evaluate-every", type=int, default=200)
    parser.add_argument("--save-minutes", type=float, default=5.0)
    return parser.parse_args()


def make_sequence(args: argparse.Namespace, maker: TaskMaker, rng: np.random.Generator,
                  vocab: int) -> Sequence:
    length = args.length + 1
    kind = rng.choice(4, p=np.array(args.mix) / sum(args.mix))
    if kind == 0:
        return maker.text(length, rng)
    if kind == 1:
        return maker.repeat(length, rng, vocab)
    if kind == 2:
        pending = int(rng.integers(1, args.pending + 1))
        return maker.interleaved(length, rng, pending, args.filler * float(rng.uniform(0.3, 1.7)),
                                 args.similar, args.chains)
    most = max(2, min(20, length // 50))
    return maker.training_haystack(length, rng, most, args.similar)


def make_batch(args: argparse.Namespace, maker: TaskMaker, vocab: int,
               step: int) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng([args.seed, step])
    tokens = np.zeros((args.batch, args.length + 1), dtype=np.int32)
    weights = np.zeros(tokens.shape, dtype=np.float32)
    pointers = np.full((args.batch, args.length // 4, 2), -1, dtype=np.int32)
    for row in range(args.batch):
        seq = make_sequence(args, maker, rng, vocab)
        n = min(len(seq), args.length + 1)
        tokens[row, :n] = seq.ids[:n]
        weights[row, :n] = seq.weights[:n]
        known = np.array([p for p in seq.pointers if p[0] < args.length], dtype=np.int32)
        known = rng.permutation(known)[:pointers.shape[1]] if len(known) else known.reshape(0, 2)
        pointers[row, :len(known)] = known
    return tokens, weights, pointers


def start_worker(args: argparse.Namespace, maker: TaskMaker, vocab: int,
                 first: int) -> queue.Queue:
    batches: queue.Queue = queue.Queue(maxsize=4)

    def work() -> None:
        for step in range(first, args.until):
            batches.put(make_batch(args, maker, vocab, step))

    threading.Thread(target=work, daemon=True).start()
    return batches


def needle_accuracy(config: model.Config, params: dict, maker: TaskMaker, length: int,
                    depth: float, keys: int, count: int, seed: int, micro: int = 4,
                    attr: str = "code") -> tuple[float, float]:
    """Share of answers, and of whole prompts, that greedy decoding gets exactly right."""
    rng = np.random.default_rng([seed, length, int(depth * 1000), keys])
    answers, prompts = [], []
    for first in range(0, count, micro):
        seqs = [maker.needle(length, rng, depth, keys, attr=attr) for _ in range(micro)]
        tokens = np.zeros((micro, length + 1), dtype=np.int32)
        for row, seq in enumerate(seqs):
            tokens[row, :len(seq)] = seq.ids
        right = np.asarray(model.predict(config, params, jnp.asarray(tokens))[0])
        for row, seq in enumerate(seqs):
            exact = [bool(right[row, a - 1:b - 1].all()) for a, b in seq.answers]
            answers += exact
            prompts.append(all(exact))
    return float(np.mean(answers)), float(np.mean(prompts))


def bits_per_byte(config: model.Config, params: dict,
                  tokenizer: sentencepiece.SentencePieceProcessor, held_out: dict[str, str],
                  length: int, windows: int | None = None) -> float:
    """Over windows of held-out text that begin with BOS; windows=None takes all of it."""
    ids = [i for text in held_out.values() for i in tokenizer.encode(text)]
    count = len(ids) // length
    chosen = range(count) if windows is None else \
        np.linspace(0, count - 1, windows).astype(int)
    nats, size = 0.0, 0
    for w in chosen:
        piece = ids[w * length:(w + 1) * length]
        tokens = jnp.asarray([[tokenizer.bos_id()] + piece])
        nats += float(model.predict(config, params, tokens)[1].sum())
        size += len(tokenizer.decode(piece).encode()) + 1
    return nats / np.log(2) / size


def save(path: Path, state: dict) -> None:
    scratch = path.with_suffix(".tmp")
    with open(scratch, "wb") as file:
        pickle.dump({"config": state["config"], "step": state["step"], "tokens": state["tokens"],
                     **jax.tree.map(np.asarray, {n: state[n] for n in ("params", "state")})}, file)
    os.replace(scratch, path)


def load_checkpoint(path: Path) -> dict:
    if not path.is_file():
        sys.exit(f"{path}: no checkpoint there; expected one written by train_model.py")
    with open(path, "rb") as file:
        saved = pickle.load(file)
    for name in ("step", "tokens"):
        saved[name] = int(saved[name])
    saved["config"] = {n: np.asarray(v).item() for n, v in saved["config"].items()}
    return saved


def main() -> None:
    args = parse_arguments()
    args.output.mkdir(parents=True, exist_ok=True)
    tokenizer = sentencepiece.SentencePieceProcessor(model_file=str(args.tokenizer))
    train, valid, held_out = corpus.load(args.text, tokenizer)
    maker = TaskMaker(tokenizer.encode, tokenizer.bos_id(), train, args.text_weight)
    judge = TaskMaker(tokenizer.encode, tokenizer.bos_id(), valid)
    checkpoint = args.output / "checkpoint.pkl"
    if args.resume:
        saved = load_checkpoint(checkpoint)
        config = model.Config(**saved["config"])
        params, state = (jax.tree.map(jnp.asarray, saved[n]) for n in ("params", "state"))
        first, seen = saved["step"], saved["tokens"]
    else:
        config = model.Config(vocab=tokenizer.vocab_size(), width=args.width, layers=args.layers,
                              heads=args.heads, kv_heads=args.kv_heads, head_dim=args.head_dim,
                              hidden=args.hidden)
        params = model.init_params(config, args.seed)
        state, first, seen = optimizer.init_state(params), 0, 0

    @partial(jax.jit, donate_argnums=1)
    def accumulate(params: dict, total: dict, tokens: jnp.ndarray, weights: jnp.ndarray,
                   pointers: jnp.ndarray) -> tuple[dict, jnp.ndarray]:
        (_, losses), grads = jax.value_and_grad(lambda p: model.weighted_loss(
            config, p, tokens, weights, pointers, args.pointers), has_aux=True)(params)
        return jax.tree.map(jnp.add, total, grads), jnp.stack(losses)

    apply = jax.jit(optimizer.update, donate_argnums=(0, 2))
    zeros = jax.jit(lambda p: jax.tree.map(jnp.zeros_like, p))
    batches = start_worker(args, maker, config.vocab, first)
    log = open(args.output / "log.jsonl", "a", buffering=1)
    log.write(json.dumps({"phase": {k: str(v) for k, v in vars(args).items()}}) + "\n")
    print(f"{sum(p.size for p in params.values())} parameters, from step {first}", flush=True)
    rate_end = args.rate if args.rate_end is None else args.rate_end
    micros = args.batch // args.micro
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    losses: list[np.ndarray] = []
    began = saved_at = time.time()
    for step in range(first, args.until):
        batch = batches.get()
        total, loss = zeros(params), np.zeros(2)
        for m in range(micros):
            rows = slice(m * args.micro, (m + 1) * args.micro)
            total, part = accumulate(params, total, *(jnp.asarray(a[rows]) for a in batch))
            loss += np.asarray(part) / micros
        total = {n: g / micros for n, g in total.items()}
        progress = (step - first) / max(1, args.until - first)
        rate = (args.rate + (rate_end - args.rate) * progress) * min(1, (step + 1) / args.warmup)
        params, state, norm = apply(params, total, state, step, rate)
        losses.append(loss)
        seen += args.batch * args.length
        if step % 20 == 0:
            mean = np.mean(losses[-20:], axis=0)
            print(f"step {step} loss {mean[0]:.3f} pointing {mean[1]:.3f} norm {float(norm):.2f} rate "
                  f"{rate:.5f} tokens {seen / 1e6:.2f}M {time.time() - began:.0f}s", flush=True)
        last = step + 1 == args.until or stop.is_set()
        if (step + 1) % args.evaluate_every == 0:
            record = {"step": step + 1, "tokens": seen, "loss": float(np.mean(losses[-100:], axis=0)[0]),
                      "seconds": time.time() - began, "length": args.length,
                      "bits_per_byte": bits_per_byte(config, params, tokenizer, held_out, 512, 20)}
            for depth in (0.1, 0.5, 0.9):
                record[f"needle_{depth}"] = needle_accuracy(
                    config, params, judge, args.length, depth, 1, 16, 7)[0]
            record["needle_4"] = needle_accuracy(
                config, params, judge, args.length, 0.3, 4, 8, 7)[0]
            log.write(json.dumps(record) + "\n")
            print(json.dumps(record), flush=True)
        if last or time.time() - saved_at > 60 * args.save_minutes:
            saved_at = time.time()
            save(checkpoint, {"config": config.as_dict(), "params": params, "state": state,
                              "step": step + 1, "tokens": seen})
        if last:
            break


if __name__ == "__main__":
    main()

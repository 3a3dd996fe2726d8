"""Figures for the model card: bits per byte with controls, and retrieval by length and depth."""

from __future__ import annotations

import missing  # noqa: F401

import argparse
import json
import lzma
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import sentencepiece

import corpus
import model
from tasks import Sequence, TaskMaker
from train_model import load_checkpoint, needle_accuracy

DEPTHS = (0.05, 0.25, 0.5, 0.75, 0.95)
LENGTHS = (512, 1024, 2048)


def model_bits(config: model.Config, params: dict, tokens: list[int], bos: int,
               length: int) -> float:
    """Bits over consecutive windows that each begin with BOS."""
    nats = 0.0
    for start in range(0, len(tokens) - length + 1, length):
        window = jnp.asarray([[bos] + tokens[start:start + length]])
        nats += float(model.predict(config, params, window)[1].sum())
    return nats / np.log(2)


def bigram_bits(train: np.ndarray, tokens: np.ndarray, vocab: int) -> float:
    """A bigram model over the same pieces, interpolated with add-one unigrams."""
    unigram = np.bincount(train, minlength=vocab) + 1.0
    unigram /= unigram.sum()
    pairs = np.zeros((vocab, vocab))
    np.add.at(pairs, (train[:-1], train[1:]), 1)
    distinct = (pairs > 0).sum(axis=1, keepdims=True)
    smoothed = (pairs + (distinct + 1e-9) * unigram) / (pairs.sum(axis=1, keepdims=True)
                                                       + distinct + 1e-9)
    return float(-np.log2(smoothed[tokens[:-1], tokens[1:]]).sum())


def packed_size(data: bytes) -> int:
    return len(lzma.compress(data, preset=9 | lzma.PRESET_EXTREME))


def bits_per_byte(args: argparse.Namespace, config: model.Config, params: dict,
                  tokenizer: sentencepiece.SentencePieceProcessor) -> dict[str, float]:
    train, _, held_out = corpus.load(args.text, tokenizer)
    text = "\n".join(held_out.values())
    ids = tokenizer.encode(text)
    ids = ids[:len(ids) // args.length * args.length]
    size = len(tokenizer.decode(ids).encode())
    whole = "\n".join(t for t in corpus.read_folder(args.text).values()).encode()
    known = "\n".join(corpus.split_held_out(t)[0]
                      for t in corpus.read_folder(args.text).values()).encode()
    packed = packed_size(known + text.encode()) - packed_size(known)
    print(f"{len(whole)} bytes of text, {size} of them measured", file=sys.stderr)
    return {"model": model_bits(config, params, ids, tokenizer.bos_id(), args.length) / size,
            "bigram": bigram_bits(train.tokens, np.array(ids), config.vocab) / size,
            "xz -9e": 8 * packed_size(text.encode()) / len(text.encode()),
            "xz -9e, after the training text": 8 * packed / len(text.encode())}


def answers_right(config: model.Config, params: dict, seqs: list[Sequence],
                  length: int) -> float:
    """Share of sequences whose last answer greedy decoding gets exactly right."""
    tokens = np.zeros((len(seqs), length + 1), dtype=np.int32)
    for row, seq in enumerate(seqs):
        tokens[row, :len(seq)] = seq.ids
    right = np.asarray(model.predict(config, params, jnp.asarray(tokens))[0])
    return float(np.mean([right[row, seq.answers[-1][0] - 1:seq.answers[-1][1] - 1].all()
                          for row, seq in enumerate(seqs)]))


def other_tasks(args: argparse.Namespace, config: model.Config, params: dict, maker: TaskMaker,
                length: int) -> dict[str, float]:
    rng = np.random.default_rng([args.seed, length])

    def chain(links: int) -> Sequence:
        used: set = set()
        facts = maker.new_chain(used, rng, links)
        noise = [maker.new_fact(used, rng, 0.7, ("code",)) for _ in range(3)]
        return maker.haystack(length, rng, facts + noise, facts[-1:])

    def count() -> Sequence:
        seq = maker.text(length - 30, rng)
        maker.counting(rng, seq)
        return seq

    makers = {"word": lambda: maker.needle(length, rng, float(rng.random()), attr="word"),
              "list of six words": lambda: maker.needle(length, rng, float(rng.random()),
                                                        attr="list"),
              "chain of two": lambda: chain(1), "chain of three": lambda: chain(2),
              "count": count}
    return {name: float(np.mean([answers_right(config, params, [make() for _ in range(4)], length)
                                 for _ in range(args.prompts // 4)]))
            for name, make in makers.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("tokenizer", type=Path)
    parser.add_argument("text", type=Path, help="folder of .txt files, as in training")
    parser.add_argument("output", type=Path, help="JSON file to write")
    parser.add_argument("--prompts", type=int, default=40, help="prompts per table cell")
    parser.add_argument("--length", type=int, default=1024, help="window for bits per byte")
    parser.add_argument("--seed", type=int, default=11)
    args = parser.parse_args()
    saved = load_checkpoint(args.checkpoint)
    config = model.Config(**saved["config"])
    params = {n: jnp.asarray(p) for n, p in saved["params"].items()}
    tokenizer = sentencepiece.SentencePieceProcessor(model_file=str(args.tokenizer))
    maker = TaskMaker(tokenizer.encode, tokenizer.bos_id(), corpus.load(args.text, tokenizer)[1])
    result: dict = {"step": saved["step"], "tokens": saved["tokens"],
                    "bits_per_byte": bits_per_byte(args, config, params, tokenizer)}
    print(json.dumps(result), flush=True)
    for length in LENGTHS:
        for depth in DEPTHS:
            one = needle_accuracy(config, params, maker, length, depth, 1, args.prompts, args.seed)
            four, all_four = needle_accuracy(config, params, maker, length, depth, 4,
                                             args.prompts // 2, args.seed)
            result[f"{length} at {depth}"] = {"one key": one[0], "four keys": four,
                                              "four keys, all right": all_four}
            print(length, depth, result[f"{length} at {depth}"], flush=True)
        result[f"{length} others"] = other_tasks(args, config, params, maker, length)
        print(length, result[f"{length} others"], flush=True)
    args.output.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()

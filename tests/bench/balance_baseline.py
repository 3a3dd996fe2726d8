#!/usr/bin/env python3
"""BalanceKV on one KV head written straightforwardly with NumPy, and its time beside the library's.

    bench_balance 10 /tmp/rows.f32 > /tmp/bench.json
    python3 tests/bench/balance_baseline.py /tmp/rows.f32 --bench /tmp/bench.json
"""

import argparse
import json
import os
import sys
import time

# One thread, and processor time, as the library is measured.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np


def walk(keys: np.ndarray, values: np.ndarray, gamma: float, temperature: float, offset: float,
         rng: np.random.Generator) -> np.ndarray:
    """Signs of one group."""
    centred = keys - keys.mean(axis=0)
    gram = np.exp(temperature / np.sqrt(keys.shape[1]) * (centred @ centred.T)) * (values @ values.T + offset)
    uniforms = rng.random(len(keys), dtype=np.float32)
    signs = np.ones(len(keys), dtype=np.float32)
    for i in range(1, len(keys)):
        if uniforms[i] >= 0.5 - gamma * (gram[i, :i] @ signs[:i]):
            signs[i] = -1.0
    return signs


def halve(keys: np.ndarray, values: np.ndarray, index: np.ndarray, weights: np.ndarray, group: int,
          rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """The half of the tokens that stays, with weights."""
    signs = np.concatenate([
        walk(keys[index[i:i + group]], values[index[i:i + group]] * weights[i:i + group, None], 4.0, 0.3, 0.025, rng)
        for i in range(0, len(index), group)])
    half = len(index) // 2
    turns = [np.flatnonzero(np.cumsum(signs == s) == half) for s in (1, -1)]
    turn = max(int(t[0]) for t in turns if len(t) > 0)
    place = np.arange(len(index))
    early = place[(place <= turn) & (signs != signs[turn])]
    kept = np.concatenate([early, place[turn + 1:]])[:half]
    return index[kept], weights[kept] * np.where(kept <= turn, 2.0, 1.0).astype(np.float32)


def compress(keys: np.ndarray, values: np.ndarray, halvings: int, group: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    index, weights = np.arange(len(keys)), np.ones(len(keys), dtype=np.float32)
    for _ in range(halvings):
        index, weights = halve(keys, values, index, weights, group, rng)
    return index, weights


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", help="float32 keys, then values, as bench_balance writes them")
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--halvings", type=int, default=2)
    parser.add_argument("--group", type=int, default=256)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--bench", help="what bench_balance printed, to compare with")
    args = parser.parse_args()
    keys, values = np.fromfile(args.rows, dtype=np.float32).reshape(2, -1, args.dim)
    best = float("inf")
    for run in range(args.runs):
        start = time.process_time()
        index, _ = compress(keys, values, args.halvings, args.group)
        best = min(best, time.process_time() - start)
        print(f"run {run + 1} of {args.runs}: {len(index)} of {len(keys)} tokens kept", file=sys.stderr, flush=True)
    result = {"bench": "balance_numpy", "tokens": len(keys), "seconds": round(best, 4)}
    if args.bench is not None:
        with open(args.bench, encoding="utf-8") as file:
            ours = json.loads(file.read())["seconds_f32"]
        result["times_faster"] = round(best / ours, 1)
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())

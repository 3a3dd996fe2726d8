"""Train the attention predictor's 4,833 weights on dumped attention rows, and compare.

Recipe "mse" is the published one: mean squared error against the next pooled row, on histories
of full rows, from a random start. Recipe "recovery" is ours: the loss is the mass that a choice
by the scores would lose, with the edge of the choice made soft, so that the order of columns near
it is what is learned; the histories are those of a run: sparse between calibrations, with and
without a floor, under choices of EMA at first and then of the network itself, of the heads there
are and of mixtures of them (vary_rows.py); the start is a set of features that already weigh the
newest rows.
"""

from __future__ import annotations

import missing  # noqa: F401

import argparse
import json
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Callable, Iterator, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import predictor_net as net
from convert_predictor import c_source, read_weights
from predictor_loss import ema_loss, mse_loss, recovery_loss
from predictor_compare import compare
from rollout import Dump, NetworkScore, Rollout, Setting, budget_of, ema, pool
from vary_rows import vary

SHARES = (16, 8, 4)
# What histories come from, drawn for each group of streams.
SIZES = ((1, 1), (1, 1), (1, 1), (1, 2), (2, 1), (2, 0.5))  # share of the tokens, of the block
FLOORS = (0.0, 0.003, 0.0, 0.003, 0.001)
SINKS = (16, 4)
LOCALS = (32, 16, 64)
CALIBRATIONS = (5, 5, 8, 5, 5, 3)
STRETCH = 32  # steps that are trained on together
REMEMBERED = 4  # turns whose histories are trained on
GROUPS = 12  # of streams that a turn plays


class Stretch(NamedTuple):
    """Rows that entered a history, and what each of the steps should have found."""
    rows: np.ndarray  # [HISTORY - 1 + STRETCH][columns]
    inside: np.ndarray  # [columns]: the crop at the first step
    target: np.ndarray  # [STRETCH][columns]
    blocks: int  # to be chosen


def roll_out(rows: np.ndarray, first_length: int, setting: Setting, share: int, score: Callable,
             dense: bool, reduce: Callable, shift: int) -> list[Stretch]:
    budget = budget_of(rows.shape[2], share, setting)
    run = Rollout(rows, first_length, setting, budget, dense)
    run.run(score)
    record = run.record.astype(np.float16)
    target = pool(rows[:, net.HISTORY:], setting.block, reduce).astype(np.float16)
    starts = range(shift % STRETCH, run.steps - STRETCH + 1, STRETCH)
    return [Stretch(record[s, t:t + net.HISTORY - 1 + STRETCH], run.inside(t),
                    target[s, t:t + STRETCH], run.blocks)
            for t in starts for s in range(len(rows))]


def batches(stretches: list[Stretch], size: int, rng: np.random.Generator) -> Iterator[tuple]:
    """Endless batches of stretches of equal width."""
    widths: dict[int, list[Stretch]] = {}
    for stretch in stretches:
        widths.setdefault(len(stretch.inside), []).append(stretch)
    groups = list(widths.values())
    odds = np.array([len(g) for g in groups]) / len(stretches)
    while True:
        group = groups[rng.choice(len(groups), p=odds)]
        picked = [group[i] for i in rng.integers(0, len(group), size)]
        yield tuple(jnp.asarray(np.stack([np.asarray(s[field], kind) for s in picked]))
                    for field, kind in enumerate((np.float32, bool, np.float32, np.int32)))


@partial(jax.jit, static_argnames="loss")
def adam(loss: Callable, params: dict, first: dict, second: dict, t: int, rate: float,
         data: tuple) -> tuple[dict, dict, dict, jnp.ndarray]:
    # One stretch after the other, because one fits into a core's cache.
    values, grads = jax.lax.map(
        lambda one: jax.value_and_grad(loss)(params, *(x[None] for x in one)), data)
    value, grads = jnp.mean(values), jax.tree.map(partial(jnp.mean, axis=0), grads)
    norm = jnp.sqrt(sum(jnp.sum(g * g) for g in grads.values()))
    grads = jax.tree.map(lambda g: g / jnp.maximum(1.0, norm), grads)
    first = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, first, grads)
    second = jax.tree.map(lambda v, g: 0.99 * v + 0.01 * g * g, second, grads)
    params = jax.tree.map(
        lambda p, m, v: p - rate * (m / (1 - 0.9 ** t)) / (jnp.sqrt(v / (1 - 0.99 ** t)) + 1e-8),
        params, first, second)
    return params, first, second, value


def fit(params: dict, loss: Callable, stretches: list[Stretch], steps: int, rate: float,
        batch: int, seed: int) -> dict:
    """Adam with a short rise and a falling rate; the result is the mean over the last half."""
    source = batches(stretches, batch, np.random.default_rng(seed))
    first, second = (jax.tree.map(jnp.zeros_like, params) for _ in range(2))
    reference = jax.jit(ema_loss) if loss is recovery_loss else lambda *_: 0.0
    mean, losses, began = params, [], time.time()
    for i in range(steps):
        data = next(source)
        now = rate * min(1.0, (i + 1) / 20) * (1 - 0.8 * i / steps)
        params, first, second, value = adam(loss, params, first, second, i + 1.0, now, data)
        losses.append((float(value), float(reference(*data))))
        averaged = max(1, i + 1 - steps // 2)
        mean = jax.tree.map(lambda m, p: m + (p - m) / averaged, mean, params)
        if (i + 1) % 50 == 0 or i + 1 == steps:
            ours, emas = np.mean(losses[-50:], axis=0)
            print(f"  step {i + 1} of {steps}: loss {ours:.5f}, EMA's {emas:.5f}, "
                  f"{time.time() - began:.0f} s", file=sys.stderr, flush=True)
    return mean


def trained_on(dump: Dump) -> np.ndarray:
    return np.array([i for i, s in enumerate(dump.streams) if not is_held_out(dump, s)])


def is_held_out(dump: Dump, stream: dict) -> bool:
    """Training leaves one head of every layer out, another one in each of four layers that follow
    each other, and the odd heads of the last layer."""
    last = max(s["layer"] for s in dump.streams)
    return stream["head"] % 4 == stream["layer"] % 4 or \
        stream["layer"] == last and stream["head"] % 2 == 1


def train_mse(args: argparse.Namespace, dumps: list[Dump], setting: Setting) -> dict:
    stretches = []
    for dump in dumps:
        stretches += roll_out(dump.take(trained_on(dump)), dump.first_length, setting, 8, ema(0.9),
                              True, np.max, 0)
    return fit(net.init_random(args.seed), mse_loss, stretches, args.steps, args.rate, args.batch,
               args.seed)


def play(args: argparse.Namespace, dumps: list[Dump], setting: Setting, score: Callable,
         rng: np.random.Generator) -> list[Stretch]:
    """Some streams of every dump, each group of them varied and in a setting of its own."""
    stretches: list[Stretch] = []
    for dump in dumps:
        trained = trained_on(dump)
        some = rng.permutation(trained)[:max(GROUPS, args.streams // len(dumps))]
        for i, group in enumerate(np.array_split(some, GROUPS)):
            divisor, factor = SIZES[rng.integers(len(SIZES))]
            varied = replace(setting, block=int(setting.block * factor), floor=rng.choice(FLOORS),
                             sink=rng.choice(SINKS), local=rng.choice(LOCALS),
                             calibration=rng.choice(CALIBRATIONS))
            rows, first_length = vary(dump, group, trained, dump.rows.shape[2] // divisor, rng)
            stretches += roll_out(rows, first_length, varied, SHARES[i % len(SHARES)], score, False,
                                  np.sum, int(rng.integers(STRETCH)))
    return stretches


def train_recovery(args: argparse.Namespace, dumps: list[Dump], setting: Setting) -> dict:
    """Turns of playing and fitting; the first plays with EMA, the others with the network."""
    rng = np.random.default_rng(args.seed)
    params = net.load_weights(args.start) if args.start else net.init_features(args.seed)
    played: list[list[Stretch]] = []
    for turn in range(args.turns):
        network = turn > 0 or args.start
        played.append(play(args, dumps, setting, NetworkScore(params) if network else ema(0.8),
                           rng))
        recent = [s for stretches in played[-REMEMBERED:] for s in stretches]
        print(f"turn {turn + 1}: {len(recent)} stretches of {STRETCH} steps", file=sys.stderr,
              flush=True)
        params = fit(params, recovery_loss, recent, args.steps // args.turns,
                     args.rate * (1 - 0.8 * turn / args.turns), args.batch, args.seed + turn)
        net.save_weights(params, args.output)
    return params


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("output", type=Path, help="folder for the six .npy files")
    parser.add_argument("--rows", type=Path, nargs="*", default=[],
                        help="row dumps to train on (none: compare only)")
    parser.add_argument("--recipe", choices=("recovery", "mse"), default="recovery")
    parser.add_argument("--start", type=Path, help="weights to start from (else: features)")
    parser.add_argument("--compare", type=Path, nargs="*", default=[], help="held-out row dumps")
    parser.add_argument("--against", type=Path, nargs="*", default=[],
                        help="folders of other weights to put into the comparison")
    parser.add_argument("--shares", type=int, nargs="*", default=list(SHARES),
                        help="budgets of the comparison: 1/N of the context")
    parser.add_argument("--table", type=Path, help="also write the weights as C literals here")
    parser.add_argument("--steps", type=int, default=3200)
    parser.add_argument("--turns", type=int, default=16, help="roll-outs between fits (recovery)")
    parser.add_argument("--streams", type=int, default=60, help="streams a turn plays")
    parser.add_argument("--batch", type=int, default=12, help=f"stretches of {STRETCH} steps")
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--block", type=int, default=16)
    parser.add_argument("--sink", type=int, default=16)
    parser.add_argument("--local", type=int, default=32)
    parser.add_argument("--calibration", type=int, default=5)
    parser.add_argument("--floor", type=float, default=0.0)
    parser.add_argument("--every", type=int, default=1, help="compare on one stream in so many")
    parser.add_argument("--heads", choices=("all", "trained", "held-out"), default="all",
                        help="compare on these heads")
    parser.add_argument("--seed", type=int, default=1)
    return parser.parse_args()


def main() -> None:
    args = parse()
    setting = Setting(args.block, args.sink, args.local, args.calibration, args.floor)
    if args.rows:
        recipe = train_mse if args.recipe == "mse" else train_recovery
        net.save_weights(recipe(args, [Dump(p) for p in args.rows], setting), args.output)
    params = net.load_weights(args.output)
    if args.table:
        args.table.write_bytes(c_source(read_weights(args.output)))
    networks = {str(args.output): params}
    networks.update({str(p): net.load_weights(p) for p in args.against})
    results = {}
    for folder in args.compare:
        dump = Dump(folder)
        chosen = np.array([i for i, s in enumerate(dump.streams) if args.heads == "all" or
                           is_held_out(dump, s) == (args.heads == "held-out")])[::args.every]
        print(f"{folder}: {len(chosen)} streams", flush=True)
        results[str(folder)] = compare(dump, chosen, setting, args.shares, networks)
    if results:
        (args.output / "comparison.json").write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()

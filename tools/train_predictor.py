"""Train the attention predictor's 4,833 weights on dumped attention rows, and compare.

Recipe "mse" is the published one: mean squared error against the next pooled row, on histories
of full rows, from a random start. Recipe "recovery" is ours: the loss is the mass that a choice
by the scores would lose, with the edge of the choice made soft, so that the order of columns near
it is what is learned; the histories are those of a run: sparse between calibrations, with and
without a floor, under choices of EMA at first and then of the network itself; the start is a set
of features that already weigh the newest rows.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Callable, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import predictor_net as net
from convert_predictor import c_source, read_weights
from predictor_loss import ema_loss, mse_loss, recovery_loss
from rollout import Dump, NetworkScore, Rollout, Setting, ema, last_step, oracle, pool

EMA_DECAYS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0)
SHARES = (16, 8, 4)
# What histories come from, drawn for each group of streams.
TEMPERS = (1.0, 1.0, 1.0, 0.6)
FLOORS = (0.0, 0.003, 0.0, 0.003, 0.001)
SINKS = (16, 4)
LOCALS = (32, 16, 64)
CALIBRATIONS = (5, 5, 8, 5, 5, 3)
STRETCH = 32  # steps that are trained on together
REMEMBERED = 4  # turns whose histories are trained on


class Stretch(NamedTuple):
    """Rows that entered a history, and what each of the steps should have found."""
    rows: np.ndarray  # [HISTORY - 1 + STRETCH][columns]
    inside: np.ndarray  # [columns]: the crop at the first step
    target: np.ndarray  # [STRETCH][columns]
    blocks: int  # to be chosen


def roll_out(dump: Dump, streams: np.ndarray, setting: Setting, share: int, temper: float,
             score: Callable, dense: bool, reduce: Callable, shift: int) -> list[Stretch]:
    rows = dump.take(streams, temper)
    run = Rollout(rows, dump.first_length, setting, budget_of(dump, share, setting), dense)
    run.run(score)
    record = run.record.astype(np.float16)
    target = pool(rows[:, net.HISTORY:], setting.block, reduce).astype(np.float16)
    starts = range(shift % STRETCH, run.steps - STRETCH + 1, STRETCH)
    return [Stretch(record[s, t:t + net.HISTORY - 1 + STRETCH], run.inside(t),
                    target[s, t:t + STRETCH], run.blocks)
            for t in starts for s in range(len(rows))]


def batches(stretches: list[Stretch], size: int, rng: np.random.Generator):
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
def adam(loss: Callable, params: dict, first: dict, second: dict, t, rate, data: tuple):
    value, grads = jax.value_and_grad(loss)(params, *data)
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


def budget_of(dump: Dump, share: int, setting: Setting) -> int:
    tokens = dump.first_length + dump.rows.shape[1]
    return tokens // share // setting.block * setting.block


def trained_on(dump: Dump) -> np.ndarray:
    return np.array([i for i, s in enumerate(dump.streams) if not is_held_out(dump, s)])


def is_held_out(dump: Dump, stream: dict) -> bool:
    """Training leaves the odd heads of the last layer out."""
    return stream["layer"] == max(s["layer"] for s in dump.streams) and stream["head"] % 2 == 1


def train_mse(args: argparse.Namespace, dumps: list[Dump], setting: Setting) -> dict:
    stretches = []
    for dump in dumps:
        stretches += roll_out(dump, trained_on(dump), setting, 8, 1.0, ema(0.9), True, np.max, 0)
    return fit(net.init_random(args.seed), mse_loss, stretches, args.steps, args.rate, args.batch,
               args.seed)


def play(args: argparse.Namespace, dumps: list[Dump], setting: Setting, score: Callable,
         rng: np.random.Generator) -> list[Stretch]:
    """Some streams of every dump, each group of them in a setting of its own."""
    stretches: list[Stretch] = []
    for dump in dumps:
        some = rng.permutation(trained_on(dump))[:max(6, args.streams // len(dumps))]
        for i, group in enumerate(np.array_split(some, 6)):
            varied = replace(setting, floor=rng.choice(FLOORS), sink=rng.choice(SINKS),
                             local=rng.choice(LOCALS), calibration=rng.choice(CALIBRATIONS))
            stretches += roll_out(dump, group, varied, SHARES[i % len(SHARES)],
                                  rng.choice(TEMPERS), score, False, np.sum,
                                  int(rng.integers(STRETCH)))
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


def compare(dump: Dump, chosen: np.ndarray, setting: Setting, shares: list[int],
            networks: dict[str, dict]) -> dict[str, dict]:
    """Recovery per stream, by method and budget; prints mean and worst decile."""
    methods: dict[str, Callable] = {"oracle": oracle, "last step": last_step}
    methods.update({f"EMA {d}": ema(d) for d in EMA_DECAYS})
    rows = dump.take(chosen)
    table: dict[str, dict] = {}
    for name in [*methods, *networks]:
        table[name] = {}
        for share in shares:
            score = methods.get(name) or NetworkScore(networks[name])
            budget = budget_of(dump, share, setting)
            recovered = Rollout(rows, dump.first_length, setting, budget).run(score)
            table[name][f"1/{share}"] = {
                "mean": float(recovered.mean()),
                "worst decile": float(np.quantile(recovered, 0.1)),
                "streams": [round(float(r), 5) for r in recovered.mean(axis=0)]}
        print(f"  {name}: " + "  ".join(f"{k} {v['mean']:.4f}/{v['worst decile']:.4f}"
                                        for k, v in table[name].items()), flush=True)
    for name in networks:
        print_lead(table, name)
    return table


def print_lead(table: dict[str, dict], name: str) -> None:
    """How far a network is ahead of the EMA whose decay is best in hindsight, stream by stream."""
    parts = []
    for share, entry in table[name].items():
        best = max((n for n in table if n.startswith("EMA")), key=lambda n: table[n][share]["mean"])
        lead = np.array(entry["streams"]) - np.array(table[best][share]["streams"])
        half = 1.96 * lead.std(ddof=1) / len(lead) ** 0.5 if len(lead) > 1 else float("nan")
        parts.append(f"{share} {lead.mean():+.4f} +- {half:.4f}")
    print(f"  {name} minus the best EMA: " + "  ".join(parts), flush=True)


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
    parser.add_argument("--steps", type=int, default=1700)
    parser.add_argument("--turns", type=int, default=17, help="roll-outs between fits (recovery)")
    parser.add_argument("--streams", type=int, default=48, help="streams a turn plays")
    parser.add_argument("--batch", type=int, default=12, help=f"stretches of {STRETCH} steps")
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--block", type=int, default=16)
    parser.add_argument("--sink", type=int, default=16)
    parser.add_argument("--local", type=int, default=32)
    parser.add_argument("--calibration", type=int, default=5)
    parser.add_argument("--floor", type=float, default=0.0)
    parser.add_argument("--every", type=int, default=1, help="compare on one stream in so many")
    parser.add_argument("--held-out-heads", action="store_true",
                        help="compare on the streams that training leaves out only")
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
        chosen = np.array([i for i, s in enumerate(dump.streams)
                           if not args.held_out_heads or is_held_out(dump, s)])[::args.every]
        print(f"{folder}: {len(chosen)} streams", flush=True)
        results[str(folder)] = compare(dump, chosen, setting, args.shares, networks)
    if results:
        (args.output / "comparison.json").write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()

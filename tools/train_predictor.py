"""Train the attention predictor's 4,833 weights on dumped attention rows, and compare.

Recipe "mse" is the published one: mean squared error against the next pooled row, on histories
of full rows, from a random start. Recipe "mass" is ours: the target is the mass a block gets next
(what a choice keeps or loses), errors count in proportion to what is expected there (a rare large
block must not drown the many small ones between which the choice is made), the start is a set of
features that already weigh the newest rows, and the histories are those of a run: sparse between
calibrations, with the floor, under choices of EMA at first and then of the network itself.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from functools import partial
from pathlib import Path
from typing import Callable

import jax
import jax.numpy as jnp
import numpy as np

import predictor_net as net
from rollout import Dump, Rollout, Setting, ema, last_step, oracle, pool

EMA_DECAYS = (0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 1.0)
SHARES = (16, 8, 4)
TEMPERS = (1.0, 1.0, 0.7, 0.5)
DOUBT = 0.003


class Samples:
    """(history, crop, targets) triples seen during roll-outs, kept as float16."""

    def __init__(self) -> None:
        self.histories: list[np.ndarray] = []
        self.inside: list[np.ndarray] = []
        self.targets: list[np.ndarray] = []

    def collect(self, rows: np.ndarray, first_length: int, setting: Setting, score: Callable,
                budget: int, dense: bool, reduce: Callable, every: int, rng) -> None:
        seen = 0

        def observe(history: np.ndarray, inside: np.ndarray, row: np.ndarray) -> None:
            nonlocal seen
            seen += 1
            picked = rng.random(len(row)) < 1 / every
            if picked.any():
                self.histories.append(history[picked].astype(np.float16))
                self.inside.append(np.repeat(inside[None], picked.sum(), axis=0))
                self.targets.append(pool(row[picked], setting.block, reduce))

        Rollout(rows, first_length, setting, budget, dense).run(score, observe)

    def arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return tuple(np.concatenate(x) for x in (self.histories, self.inside, self.targets))


def mse_loss(params: dict, history, inside, target) -> jnp.ndarray:
    error = (net.scores(params, history, inside) - target) ** 2 * inside
    return jnp.sum(error) / jnp.sum(inside)


def mass_loss(params: dict, history, inside, target) -> jnp.ndarray:
    predicted = net.scores(params, history, inside)
    doubt = jax.lax.stop_gradient(jnp.maximum(predicted, 0)) + DOUBT
    return jnp.sum((predicted - target) ** 2 / doubt * inside) / jnp.sum(inside)


def fit(params: dict, loss: Callable, samples: Samples, steps: int, rate: float, batch: int,
        seed: int) -> dict:
    """Adam with a linearly falling rate."""
    history, inside, target = samples.arrays()
    rng = np.random.default_rng(seed)

    @jax.jit
    def step(params, first, second, t, rate, history, inside, target):
        value, grads = jax.value_and_grad(loss)(params, history, inside, target)
        norm = jnp.sqrt(sum(jnp.sum(g * g) for g in grads.values()))
        grads = jax.tree.map(lambda g: g / jnp.maximum(1.0, norm), grads)
        first = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, first, grads)
        second = jax.tree.map(lambda v, g: 0.99 * v + 0.01 * g * g, second, grads)
        params = jax.tree.map(
            lambda p, m, v: p - rate * (m / (1 - 0.9 ** t))
            / (jnp.sqrt(v / (1 - 0.99 ** t)) + 1e-8), params, first, second)
        return params, first, second, value

    first = jax.tree.map(jnp.zeros_like, params)
    second = jax.tree.map(jnp.zeros_like, params)
    losses, began = [], time.time()
    for i in range(steps):
        pick = rng.integers(0, len(history), batch)
        params, first, second, value = step(
            params, first, second, i + 1.0, rate * (1 - 0.95 * i / steps),
            jnp.asarray(history[pick], jnp.float32), jnp.asarray(inside[pick]),
            jnp.asarray(target[pick]))
        losses.append(float(value))
        if (i + 1) % 100 == 0:
            print(f"  step {i + 1} loss {np.mean(losses[-100:]):.6f} "
                  f"{time.time() - began:.0f}s", file=sys.stderr, flush=True)
    return params


def network_score(params: dict) -> Callable:
    run = jax.jit(partial(net.scores, params))
    return lambda history, inside, mass: np.asarray(
        run(jnp.asarray(history), jnp.repeat(jnp.asarray(inside)[None], len(history), axis=0)))


def select_streams(dump: Dump, wanted: Callable[[dict], bool]) -> np.ndarray:
    return np.array([i for i, s in enumerate(dump.streams) if wanted(s)])


def budget_of(dump: Dump, share: int, setting: Setting) -> int:
    tokens = dump.first_length + dump.rows.shape[1]
    return tokens // share // setting.block * setting.block


def train(args: argparse.Namespace, dump: Dump, setting: Setting) -> dict:
    """The held-out streams are the odd heads of the last layer."""
    last = max(s["layer"] for s in dump.streams)
    chosen = select_streams(dump, lambda s: s["layer"] != last or s["head"] % 2 == 0)
    rng = np.random.default_rng(args.seed)
    if args.recipe == "mse":
        params, samples = net.init_random(args.seed), Samples()
        samples.collect(dump.take(chosen), dump.first_length, setting, ema(0.9),
                        budget_of(dump, 8, setting), True, np.max, args.every, rng)
        return fit(params, mse_loss, samples, args.steps, args.rate, args.batch, args.seed)
    params, score, samples = net.init_features(args.seed), ema(0.8), Samples()
    for turn in range(args.turns):
        groups = np.array_split(rng.permutation(chosen), len(TEMPERS) * len(SHARES))
        for i, group in enumerate(groups):
            samples.collect(dump.take(group, TEMPERS[i % len(TEMPERS)]), dump.first_length,
                            setting, score, budget_of(dump, SHARES[i // len(TEMPERS)], setting),
                            False, np.sum, args.every, rng)
        print(f"turn {turn + 1}: {sum(map(len, samples.targets))} samples", file=sys.stderr)
        params = fit(params, mass_loss, samples, args.steps // args.turns, args.rate, args.batch,
                     args.seed + turn)
        score = network_score(params)
    return params


def compare(dump: Dump, chosen: np.ndarray, setting: Setting,
            networks: dict[str, dict]) -> dict[str, dict[str, list[float]]]:
    """Mean recovery and worst decile per method and budget share."""
    methods: dict[str, Callable] = {"oracle": oracle, "last step": last_step}
    methods.update({f"EMA {d}": ema(d) for d in EMA_DECAYS})
    methods.update({name: network_score(p) for name, p in networks.items()})
    rows = dump.take(chosen)
    table: dict[str, dict[str, list[float]]] = {}
    for name, score in methods.items():
        table[name] = {}
        for share in SHARES:
            budget = budget_of(dump, share, setting)
            recovered = Rollout(rows, dump.first_length, setting, budget).run(score)
            table[name][f"1/{share}"] = [float(recovered.mean()),
                                         float(np.quantile(recovered, 0.1))]
        print(f"  {name}: " + "  ".join(f"{k} {v[0]:.4f}/{v[1]:.4f}"
                                        for k, v in table[name].items()), flush=True)
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("output", type=Path, help="folder for the six .npy files")
    parser.add_argument("--rows", type=Path, help="row dump to train on (else: compare only)")
    parser.add_argument("--recipe", choices=("mass", "mse"), default="mass")
    parser.add_argument("--compare", type=Path, nargs="*", default=[], help="held-out row dumps")
    parser.add_argument("--against", type=Path, nargs="*", default=[],
                        help="folders of other weights to put into the comparison")
    parser.add_argument("--table", type=Path, help="also write the weights as C literals here")
    parser.add_argument("--steps", type=int, default=1200)
    parser.add_argument("--turns", type=int, default=2, help="roll-outs between fits (mass)")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rate", type=float, default=3e-3)
    parser.add_argument("--every", type=int, default=8, help="keep one in so many steps")
    parser.add_argument("--block", type=int, default=16)
    parser.add_argument("--sink", type=int, default=16)
    parser.add_argument("--local", type=int, default=32)
    parser.add_argument("--calibration", type=int, default=5)
    parser.add_argument("--floor", type=float, default=0.003)
    parser.add_argument("--held-out-heads", action="store_true",
                        help="compare on the streams that training leaves out only")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    setting = Setting(args.block, args.sink, args.local, args.calibration, args.floor)
    if args.rows:
        params = train(args, Dump(args.rows), setting)
        net.save_weights(params, args.output)
    params = net.load_weights(args.output)
    if args.table:
        net.write_table(params, args.table)
    networks = {str(args.output): params}
    networks.update({str(p): net.load_weights(p) for p in args.against})
    results = {}
    for folder in args.compare:
        dump = Dump(folder)
        last = max(s["layer"] for s in dump.streams)
        chosen = select_streams(dump, lambda s: not args.held_out_heads
                                or (s["layer"] == last and s["head"] % 2 == 1))
        print(f"{folder}: {len(chosen)} streams", flush=True)
        results[str(folder)] = compare(dump, chosen, setting, networks)
    if results:
        (args.output / "comparison.json").write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()

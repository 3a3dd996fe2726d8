"""Decode with block selection over dumped rows: what a history holds at run time.

Between calibrations a history's rows are sparse: zero outside the tokens that the last choice
kept, the rest renormalised. Which tokens those are depends on the policy that scored the blocks.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

import jax
import numpy as np

import predictor_net as net
from predictor_net import HISTORY


@dataclass(frozen=True)
class Setting:
    block: int = 16
    sink: int = 16
    local: int = 32
    calibration: int = 5
    floor: float = 0.003


class Dump:
    """Rows of many streams."""

    def __init__(self, folder: Path) -> None:
        try:
            self.rows = np.load(folder / "rows.npy", mmap_mode="r")
            meta = json.loads((folder / "meta.json").read_text())
            self.first_length, self.streams = meta["first_length"], meta["streams"]
        except (OSError, ValueError, KeyError) as error:
            raise SystemExit(f"{folder}: not a row dump ({error}); expected rows.npy and "
                             "meta.json as dump_rows.py writes them") from error
        if self.rows.ndim != 3 or len(self.rows) != len(self.streams):
            raise SystemExit(f"{folder}/rows.npy: shape {self.rows.shape}, expected "
                             f"[{len(self.streams)}][rows][tokens]")
        if self.rows.shape[2] < self.first_length + self.rows.shape[1] - 1:
            raise SystemExit(f"{folder}/rows.npy: cut short; {self.rows.shape[2]} tokens, expected "
                             f"{self.first_length + self.rows.shape[1] - 1}")

    def take(self, chosen: np.ndarray) -> np.ndarray:
        rows = np.asarray(self.rows[chosen], np.float32)
        return rows / np.maximum(rows.sum(axis=2, keepdims=True), 1e-9)


def pool(rows: np.ndarray, block: int, reduce: Callable = np.max) -> np.ndarray:
    pad = -rows.shape[-1] % block
    rows = np.pad(rows, [(0, 0)] * (rows.ndim - 1) + [(0, pad)])
    return reduce(rows.reshape(*rows.shape[:-1], -1, block), axis=-1)


def crop(setting: Setting, length: int, columns: int) -> np.ndarray:
    """Columns a predictor scores when the cache has `length` tokens: neither sink nor local."""
    end = -(-length // setting.block) - setting.local // setting.block
    at = np.arange(columns)
    return (at >= setting.sink // setting.block) & (at < end)


def choose(scores: np.ndarray, inside: np.ndarray, count: int) -> np.ndarray:
    """Per stream the `count` best columns inside the crop; ties go to the lower column."""
    ranked = np.argsort(np.where(inside, -scores, np.inf), axis=1, kind="stable")
    kept = np.zeros(scores.shape, dtype=bool)
    np.put_along_axis(kept, ranked[:, :count], True, axis=1)
    return kept & inside


def budget_of(tokens: int, share: int, setting: Setting) -> int:
    return tokens // share // setting.block * setting.block


class Rollout:
    """One decode over all given streams at one budget.

    `score(history, inside, mass)` gives the column scores before each step; `mass`, the step's own
    block masses, is for the oracle alone. `record` [streams][HISTORY + steps][columns] grows into
    all rows that entered the history.
    """

    def __init__(self, rows: np.ndarray, first_length: int, setting: Setting,
                 budget: int, dense_history: bool = False) -> None:
        self.rows, self.first_length, self.setting = rows, first_length, setting
        self.blocks = max(1, (budget - setting.sink - setting.local) // setting.block)
        self.dense = dense_history
        self.record = np.empty((*rows.shape[:2], -(-rows.shape[2] // setting.block)), np.float32)
        self.record[:, :HISTORY] = self.floored(pool(rows[:, :HISTORY], setting.block))
        self.steps = rows.shape[1] - HISTORY

    def floored(self, pooled: np.ndarray) -> np.ndarray:
        return np.where(pooled < self.setting.floor, 0, pooled)

    def inside(self, step: int) -> np.ndarray:
        """The crop before a step: the history lags the cache by that step's token."""
        return crop(self.setting, self.first_length + HISTORY + step - 1, self.record.shape[2])

    def run(self, score: Callable) -> np.ndarray:
        """Recovery [steps][streams]."""
        s = self.setting
        recovery = np.empty((self.steps, len(self.rows)), np.float32)
        for t in range(self.steps):
            row = self.rows[:, HISTORY + t]
            length = self.first_length + HISTORY + t
            inside = self.inside(t)
            scores = score(self.record[:, t:t + HISTORY], inside, pool(row, s.block, np.sum))
            kept = choose(scores, inside, self.blocks)
            tokens = np.repeat(kept, s.block, axis=1)[:, :row.shape[1]]
            tokens[:, :s.sink] = True
            tokens[:, length - s.local:length] = True
            sparse = row * tokens
            recovery[t] = sparse.sum(axis=1)
            if not self.dense and (t + 1) % s.calibration:
                row = sparse / np.maximum(recovery[t], 1e-9)[:, None]
            self.record[:, HISTORY + t] = self.floored(pool(row, s.block))
        return recovery


row_scores = jax.jit(net.row_scores)


class NetworkScore:
    """The network's scores, kept up as the history slides: five rows of each edge change."""

    def __init__(self, params: dict) -> None:
        self.bias = float(params["conv3.bias"][0])
        self.params = params
        self.inside: np.ndarray | None = None
        self.history = self.per_row = np.empty(0)

    def __call__(self, history: np.ndarray, inside: np.ndarray, mass: np.ndarray) -> np.ndarray:
        masks = np.repeat(inside[None], len(history), axis=0)
        slid = self.inside is not None and np.array_equal(inside, self.inside) and \
            np.array_equal(history[:, :-1], self.history[:, 1:])
        if slid:
            edges = np.concatenate([history[:, :5], history[:, -5:]])
            fresh = np.asarray(row_scores(self.params, edges, np.concatenate([masks, masks])))
            self.per_row[:, :-1] = self.per_row[:, 1:]
            self.per_row[:, :2] = fresh[:len(history), :2]
            self.per_row[:, -3:] = fresh[len(history):, -3:]
        else:
            self.per_row = np.array(row_scores(self.params, history, masks))
        self.history, self.inside = history, inside
        return self.per_row.mean(axis=1) + self.bias


def ema_weights(decay: float) -> np.ndarray:
    return decay ** np.arange(HISTORY - 1, -1, -1, dtype=np.float32)


def ema(decay: float) -> Callable:
    """Exponential moving average over the history's rows, newest heaviest."""
    weights = ema_weights(decay)
    return lambda history, inside, mass: np.einsum("t,stc->sc", weights, history)


def last_step(history: np.ndarray, inside: np.ndarray, mass: np.ndarray) -> np.ndarray:
    return history[:, -1]


def oracle(history: np.ndarray, inside: np.ndarray, mass: np.ndarray) -> np.ndarray:
    return mass

"""Decode with block selection over dumped rows: what a history holds at run time.

Between calibrations a history's rows are sparse: zero outside the tokens that the last choice
kept, the rest renormalised. Which tokens those are depends on the policy that scored the blocks.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

import numpy as np

from predictor_net import HISTORY


@dataclass(frozen=True)
class Setting:
    block: int = 16
    sink: int = 16
    local: int = 32
    calibration: int = 5
    floor: float = 0.003


class Dump:
    """Rows of many streams; `temper` flattens them as a higher softmax temperature would."""

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

    def take(self, chosen: np.ndarray, temper: float = 1.0) -> np.ndarray:
        rows = np.asarray(self.rows[chosen], np.float32)
        if temper != 1.0:
            rows = np.where(rows > 0, rows, 0) ** temper
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


class Rollout:
    """One decode over all given streams at one budget.

    `score(history, inside, target)` gives the column scores before each step; `target`, the
    step's own block masses, is for the oracle alone.
    """

    def __init__(self, rows: np.ndarray, first_length: int, setting: Setting,
                 budget: int, dense_history: bool = False) -> None:
        self.rows, self.first_length, self.setting = rows, first_length, setting
        self.blocks = (budget - setting.sink - setting.local) // setting.block
        self.dense = dense_history
        self.pooled = self.floored(pool(rows[:, :HISTORY], setting.block))
        self.history = self.pooled
        self.recovery: list[np.ndarray] = []

    def floored(self, pooled: np.ndarray) -> np.ndarray:
        return np.where(pooled < self.setting.floor, 0, pooled)

    def run(self, score: Callable, observe: Callable | None = None) -> np.ndarray:
        """Recovery [steps][streams]; observe(history, inside, step_row) sees every step."""
        s = self.setting
        steps = self.rows.shape[1] - HISTORY
        for t in range(steps):
            row = self.rows[:, HISTORY + t]
            length = self.first_length + HISTORY + t
            inside = crop(s, length - 1, self.history.shape[2])
            mass = pool(row, s.block, np.sum)
            if observe:
                observe(self.history, inside, row)
            kept = choose(score(self.history, inside, mass), inside, self.blocks)
            tokens = np.repeat(kept, s.block, axis=1)[:, :row.shape[1]]
            tokens[:, :s.sink] = True
            tokens[:, length - s.local:length] = True
            sparse = row * tokens
            recovered = sparse.sum(axis=1)
            self.recovery.append(recovered)
            if not self.dense and (t + 1) % s.calibration:
                row = sparse / np.maximum(recovered, 1e-9)[:, None]
            new = self.floored(pool(row, s.block))[:, None]
            self.history = np.concatenate([self.history[:, 1:], new], axis=1)
        return np.array(self.recovery)


def ema(decay: float) -> Callable:
    """Exponential moving average over the history's rows, newest heaviest."""
    weights = decay ** np.arange(HISTORY - 1, -1, -1, dtype=np.float32)
    return lambda history, inside, mass: np.einsum("t,stc->sc", weights, history)


def last_step(history: np.ndarray, inside: np.ndarray, mass: np.ndarray) -> np.ndarray:
    return history[:, -1]


def oracle(history: np.ndarray, inside: np.ndarray, mass: np.ndarray) -> np.ndarray:
    return mass

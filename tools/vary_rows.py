"""More heads than a model has: rows of a dump flattened, sharpened, mixed and cut.

The example model has two dozen heads, and training on them as they are suits those few. A product
of two heads' rows is what a head with the sum of their logits would attend to; a mean of them is
the row that a policy sees which chooses once for several query heads.
"""

from __future__ import annotations

import numpy as np

from rollout import Dump

KINDS = ("plain", "temper", "product", "mean")
ODDS = (0.5, 0.15, 0.2, 0.15)
TEMPERS = (0.3, 1.4)  # least and greatest power of a row's weights
SMALLEST = 1e-7  # what float16 cannot hold counts as this
KEPT = 16  # first tokens, which a cut leaves: models put their sinks there


def power(rows: np.ndarray, exponent: float) -> np.ndarray:
    """Tokens that a row cannot see get more than nothing by it: mask them afterwards."""
    return np.maximum(rows, SMALLEST) ** exponent


def partners(dump: Dump, streams: np.ndarray, among: np.ndarray,
             rng: np.random.Generator) -> np.ndarray:
    """For each stream another one, or itself, of the same text."""
    text = {i: dump.streams[i]["text"] for i in among}
    return np.array([rng.choice([j for j in among if text[j] == text[i]]) for i in streams])


def cut(rows: np.ndarray, tokens: int) -> np.ndarray:
    return np.concatenate([rows[..., :KEPT], rows[..., rows.shape[-1] - tokens + KEPT:]], axis=-1)


def vary(dump: Dump, streams: np.ndarray, among: np.ndarray, tokens: int,
         rng: np.random.Generator) -> tuple[np.ndarray, int]:
    """Rows [streams][rows][tokens] over the first and the last tokens, and what row 0 sees."""
    kind = rng.choice(KINDS, p=ODDS)
    rows = dump.take(streams)
    seen = dump.first_length + np.arange(rows.shape[1])[:, None] > np.arange(rows.shape[2])
    if kind == "temper":
        rows = power(rows, rng.uniform(*TEMPERS))
    elif kind == "product":
        rows = power(rows, rng.uniform(0.3, 0.9)) * \
            power(dump.take(partners(dump, streams, among, rng)), rng.uniform(0.2, 0.8))
    elif kind == "mean":
        share = rng.uniform(0.3, 0.7)
        rows = share * rows + (1 - share) * dump.take(partners(dump, streams, among, rng))
    dropped = rows.shape[2] - tokens
    rows = cut(rows * seen, tokens) if dropped else rows * seen
    total = rows.sum(axis=2, keepdims=True)  # nothing, where a cut took all that float16 held
    return rows / np.maximum(total, 1e-9), dump.first_length - dropped

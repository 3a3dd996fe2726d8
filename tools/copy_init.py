"""Initial weights that already look back and copy, where training would take long to find it.

Looking a fact up needs heads that see the tokens just before, and heads that match what they
saw with the current token and copy what came next. The first layer's heads start as the former,
the second layer's as the latter; training is free to change both.

The residual stream starts in two halves: feature 0 is constant and the rest of the first half is
the embedding; the second half has one slot per head for what the first layer saw.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:  # model imports this file
    import model

CONSTANT = 0.2
LOOK_BACK = 4.0
MATCH = 2.0
COPY = 0.12


def look_back(config: model.Config, weights: dict, rates: np.ndarray,
              rng: np.random.Generator) -> np.ndarray:
    """Head h of layer 0 attends to the token h + 1 before; returns what its values hold."""
    c, half, slot = config, config.head_dim // 2, config.head_dim // 2
    wq, wk, wv, wo = (weights[n][0] for n in ("wq", "wk", "wv", "wo"))
    wq[:], wk[:], wo[:] = 0, 0, 0
    seen = np.linalg.qr(rng.normal(size=(c.width // 2 - 1, slot)))[0]
    for g in range(c.kv_heads):
        at = g * c.head_dim
        wk[0, at + np.arange(2)] = LOOK_BACK
        wv[:, at:at + slot] = 0
        wv[1:c.width // 2, at:at + slot] = seen
    for h in range(c.heads):
        turned = -rates[:2] * (h + 1)
        at = h * c.head_dim
        wq[0, at + np.arange(2)] = LOOK_BACK * np.cos(turned)
        wq[0, at + half + np.arange(2)] = LOOK_BACK * np.sin(turned)
        wo[at + np.arange(slot), c.width // 2 + h * slot + np.arange(slot)] = 0.06
    return seen


def match_and_copy(config: model.Config, weights: dict, seen: np.ndarray) -> None:
    """Layer 1: KV head g matches offset g + 1 of the past with offset g of the present.

    Only the slow half of the rotations is used: it hardly turns over the whole context.
    """
    c, half, slot = config, config.head_dim // 2, config.head_dim // 2
    wq, wk, wv, wo = (weights[n][1] for n in ("wq", "wk", "wv", "wo"))
    for w in (wq, wk, wv):
        w *= 0.2
    wo[:] = 0
    slow = np.concatenate([np.arange(half // 2, half), half + np.arange(half // 2, half)])
    group = c.heads // c.kv_heads
    copied = c.width // 2 // c.kv_heads
    for g in range(c.kv_heads):
        at = g * c.head_dim + slow
        wk[:, at] = 0
        wk[c.width // 2 + g * slot + np.arange(slot), at] = MATCH
        features = g * copied + np.arange(copied)
        wv[:, g * c.head_dim + np.arange(copied)] = 0
        wv[features, g * c.head_dim + np.arange(copied)] = features > 0
        for h in range(g * group, (g + 1) * group):
            at = h * c.head_dim + slow
            wq[:, at] = 0
            if g == 0:
                wq[1:c.width // 2, at] = MATCH * seen
            else:
                wq[c.width // 2 + (g - 1) * slot + np.arange(slot), at] = MATCH
            wo[h * c.head_dim + np.arange(copied), features] = COPY


def apply(config: model.Config, weights: dict, rates: np.ndarray,
          rng: np.random.Generator) -> dict:
    """The given initial weights (NumPy, [in][out]) with the two layers put in place."""
    if config.width != config.heads * config.head_dim or config.layers < 2:
        raise ValueError("the copying start needs width = heads * head_dim and two layers")
    embed = weights["embed"]
    embed[:, config.width // 2:] = 0
    embed *= 0.55 / np.linalg.norm(embed, axis=1, keepdims=True)
    embed[:, 0] = CONSTANT
    match_and_copy(config, weights, look_back(config, weights, rates, rng))
    return weights

"""What the predictor is trained to make small.

All losses take a batch of stretches: rows [batch][HISTORY - 1 + steps][columns] that entered a
history, the crop `inside` [batch][columns], what each step should have found as `target`
[batch][steps][columns], and how many `blocks` [batch] are chosen.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

import predictor_net as net
from rollout import ema_weights

SOFTNESS = 0.1  # of the edge of a choice; at this one the soft choice loses 1% more than the hard


def mse_loss(params: dict, rows: jnp.ndarray, inside: jnp.ndarray, target: jnp.ndarray,
             blocks: jnp.ndarray) -> jnp.ndarray:
    mask = inside[:, None]
    error = (net.stretch_scores(params, rows, inside) - target) ** 2 * mask
    return jnp.sum(error) / jnp.sum(mask * jnp.ones_like(target))


def soft_edge(scores: jnp.ndarray, mask: jnp.ndarray, spread: jnp.ndarray,
              blocks: jnp.ndarray) -> jnp.ndarray:
    """Where to cut so that `blocks` columns are expected to be kept, one step's cut each."""
    hold = jax.lax.stop_gradient
    still, wide = hold(scores), hold(spread)

    def halve(_: int, ends: tuple) -> tuple:
        middle = (ends[0] + ends[1]) / 2
        kept = jnp.sum(jax.nn.sigmoid((still - middle) / wide) * mask, axis=2, keepdims=True)
        return (jnp.where(kept > blocks, middle, ends[0]),
                jnp.where(kept > blocks, ends[1], middle))

    lowest = jnp.min(jnp.where(mask, still, jnp.inf), axis=2, keepdims=True) - 9 * wide
    highest = jnp.max(jnp.where(mask, still, -jnp.inf), axis=2, keepdims=True) + 9 * wide
    low, high = jax.lax.fori_loop(0, 24, halve, (lowest, highest))
    edge = (low + high) / 2
    # One step of Newton's method: it moves nothing, but its derivative is that of the solution.
    kept = jax.nn.sigmoid((scores - edge) / spread) * mask
    slope = hold(jnp.sum(kept * (1 - kept), axis=2, keepdims=True) / spread)
    excess = jnp.sum(kept, axis=2, keepdims=True)
    return edge + (excess - hold(excess)) / jnp.maximum(slope, 1e-9)


def recovery_loss(params: dict, rows: jnp.ndarray, inside: jnp.ndarray, target: jnp.ndarray,
                  blocks: jnp.ndarray) -> jnp.ndarray:
    lost = lost_mass(net.stretch_scores(params, rows, inside), inside, target, blocks)
    return jnp.mean(lost * weight_of(inside, target, blocks))


def ema_loss(rows: jnp.ndarray, inside: jnp.ndarray, target: jnp.ndarray,
             blocks: jnp.ndarray) -> jnp.ndarray:
    """What EMA loses on the same rows, to hold a loss against."""
    weights, steps = ema_weights(0.7), target.shape[1]
    windows = np.stack([np.pad(weights, (i, steps - 1 - i)) for i in range(steps)])
    lost = lost_mass(jnp.einsum("tr,brc->btc", windows, rows), inside, target, blocks)
    return jnp.mean(lost * weight_of(inside, target, blocks))


def weight_of(inside: jnp.ndarray, target: jnp.ndarray, blocks: jnp.ndarray) -> jnp.ndarray:
    """What a stretch counts [batch]: more where a good choice gains little over a blind one, as in
    heads that look everywhere, or those would not be learned. About one for a usual head."""
    mass = jnp.where(inside[:, None], target, 0)
    ranked = -jnp.sort(-mass, axis=2)
    best = jnp.sum(jnp.where(jnp.arange(mass.shape[2]) < blocks[:, None, None], ranked, 0), axis=2)
    blind = jnp.sum(mass, axis=2) * (blocks / jnp.sum(inside, axis=1))[:, None]
    return 0.6 * (jnp.mean(best - blind, axis=1) + 0.03) ** -0.25


def lost_mass(scores: jnp.ndarray, inside: jnp.ndarray, target: jnp.ndarray,
              blocks: jnp.ndarray) -> jnp.ndarray:
    """Mass of the crop that a choice of `blocks` columns loses [batch], its edge made soft.

    A column is kept with a probability that rises with its score's distance from the edge, in
    units of the spread of the scores about the edge; so the loss does not depend on their scale.
    """
    mask = inside[:, None]
    ranked = -jnp.sort(jnp.where(mask, -scores, jnp.inf), axis=2)
    blocks = jnp.minimum(blocks, jnp.sum(inside, axis=1) - 1)[:, None, None]
    rank = jnp.arange(scores.shape[2])
    count = jnp.sum(inside, axis=1)[:, None, None]

    def mean_of(first: jnp.ndarray, end: jnp.ndarray) -> jnp.ndarray:
        wanted = (rank >= first) & (rank < jnp.minimum(end, count))
        return jnp.sum(jnp.where(wanted, ranked, 0), axis=2, keepdims=True) / \
            jnp.maximum(jnp.sum(wanted, axis=2, keepdims=True), 1)

    spread = SOFTNESS * (mean_of(blocks // 2, blocks) - mean_of(blocks, 2 * blocks)) + 1e-6
    edge = soft_edge(scores, mask, spread, blocks)
    kept = jax.nn.sigmoid((scores - edge) / spread) * mask
    return jnp.mean(jnp.sum((1 - kept) * target * mask, axis=2), axis=1)

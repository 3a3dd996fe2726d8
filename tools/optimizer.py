"""Muon for the matrices inside the layers, AdamW for embeddings and gains."""

from __future__ import annotations

import jax
import jax.numpy as jnp

MATRICES = ("wq", "wk", "wv", "wo", "gate", "up", "down")


def orthogonalise(m: jnp.ndarray) -> jnp.ndarray:
    """Bring the singular values of stacked matrices near one (Newton-Schulz, degree five)."""
    tall = m.shape[-2] > m.shape[-1]
    x = jnp.swapaxes(m, -1, -2) if tall else m
    x = x / (jnp.linalg.norm(x, axis=(-2, -1), keepdims=True) + 1e-7)
    for _ in range(5):
        gram = x @ jnp.swapaxes(x, -1, -2)
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return jnp.swapaxes(x, -1, -2) if tall else x


def init_state(params: dict) -> dict:
    zeros = jax.tree.map(jnp.zeros_like, params)
    return {"first": zeros,
            "second": {n: jnp.zeros_like(p) for n, p in params.items() if n not in MATRICES}}


def update(params: dict, grads: dict, state: dict, step: jnp.ndarray, rate: jnp.ndarray,
           decay: float = 0.05, clip: float = 1.0) -> tuple[dict, dict, jnp.ndarray]:
    norm = jnp.sqrt(sum(jnp.sum(g * g) for g in grads.values()))
    scale = jnp.minimum(1.0, clip / (norm + 1e-9))
    new_params, first, second = {}, {}, {}
    for name, p in params.items():
        g = grads[name] * scale
        if name in MATRICES:
            first[name] = m = 0.95 * state["first"][name] + g
            change = orthogonalise(g + 0.95 * m) * 0.2 * max(p.shape[-2:]) ** 0.5
            new_params[name] = p * (1 - rate * decay) - rate * change
        else:
            first[name] = m = 0.9 * state["first"][name] + 0.1 * g
            second[name] = v = 0.98 * state["second"][name] + 0.02 * g * g
            change = (m / (1 - 0.9 ** (step + 1))) / (
                jnp.sqrt(v / (1 - 0.98 ** (step + 1))) + 1e-8)
            new_params[name] = p - 0.5 * rate * change
    return new_params, {"first": first, "second": second}, norm

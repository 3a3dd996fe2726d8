"""A Llama-architecture decoder in JAX: RMSNorm, RoPE, grouped queries, SwiGLU, tied embeddings."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import copy_init

QUERY_CHUNK = 256


@dataclass(frozen=True)
class Config:
    vocab: int = 1024
    width: int = 192
    layers: int = 6
    heads: int = 6
    kv_heads: int = 3
    head_dim: int = 32
    hidden: int = 512
    context: int = 2048
    rope_base: float = 1e8
    norm_eps: float = 1e-5

    def as_dict(self) -> dict:
        return asdict(self)


def init_params(config: Config, seed: int) -> dict:
    """Weights are [in][out], layers stacked in front; most output projections start at 0."""
    rng = np.random.default_rng(seed)

    def normal(*shape: int, std: float | None = None) -> np.ndarray:
        return rng.normal(0, shape[-2] ** -0.5 if std is None else std, shape)

    c, n = config, config.layers
    inner, kv = c.heads * c.head_dim, c.kv_heads * c.head_dim
    weights = {
        "embed": normal(c.vocab, c.width, std=0.05),
        "final_norm": np.ones(c.width),
        "attn_norm": np.ones((n, c.width)),
        "ffn_norm": np.ones((n, c.width)),
        "wq": normal(n, c.width, inner), "wk": normal(n, c.width, kv),
        "wv": normal(n, c.width, kv), "wo": np.zeros((n, inner, c.width)),
        "gate": normal(n, c.width, c.hidden), "up": normal(n, c.width, c.hidden),
        "down": np.zeros((n, c.hidden, c.width)),
    }
    weights = copy_init.apply(config, weights, rope_rates(config), rng)
    return {name: jnp.asarray(w, jnp.float32) for name, w in weights.items()}


def rms_norm(x: jnp.ndarray, gain: jnp.ndarray, eps: float) -> jnp.ndarray:
    return x * jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + eps) * gain


def rope_rates(config: Config) -> np.ndarray:
    half = config.head_dim // 2
    return config.rope_base ** (-np.arange(half) / half)


def rope_tables(config: Config, length: int) -> tuple[jnp.ndarray, jnp.ndarray]:
    angles = np.arange(length)[:, None] * rope_rates(config)[None, :]
    return jnp.asarray(np.cos(angles), jnp.float32), jnp.asarray(np.sin(angles), jnp.float32)


def rotate(x: jnp.ndarray, cos: jnp.ndarray, sin: jnp.ndarray) -> jnp.ndarray:
    """Rotate [..., time, dim]; dimension i pairs with i + dim/2 (export reorders to i, i+1)."""
    a, b = jnp.split(x, 2, axis=-1)
    return jnp.concatenate([a * cos - b * sin, a * sin + b * cos], axis=-1)


def attend(q: jnp.ndarray, k: jnp.ndarray, v: jnp.ndarray) -> jnp.ndarray:
    """Causal attention of q [batch, kv, group, time, dim] in chunks that skip the future."""
    length, dim = q.shape[-2:]
    outputs = []
    for start in range(0, length, QUERY_CHUNK):
        stop = min(start + QUERY_CHUNK, length)
        logits = jnp.einsum("bkgqd,bksd->bkgqs", q[..., start:stop, :] * dim ** -0.5,
                            k[:, :, :stop])
        future = np.arange(stop)[None, :] > np.arange(start, stop)[:, None]
        weights = jax.nn.softmax(jnp.where(future, -1e30, logits), axis=-1)
        outputs.append(jnp.einsum("bkgqs,bksd->bkgqd", weights, v[:, :, :stop]))
    return jnp.concatenate(outputs, axis=-2)


def block(config: Config, x: jnp.ndarray, layer: dict, cos: jnp.ndarray,
          sin: jnp.ndarray) -> tuple[jnp.ndarray, tuple]:
    c = config
    batch, length, _ = x.shape
    h = rms_norm(x, layer["attn_norm"], c.norm_eps)
    q = (h @ layer["wq"]).reshape(batch, length, c.kv_heads, -1, c.head_dim)
    q = rotate(q.transpose(0, 2, 3, 1, 4), cos, sin)
    k = (h @ layer["wk"]).reshape(batch, length, c.kv_heads, c.head_dim).transpose(0, 2, 1, 3)
    k = rotate(k, cos, sin)
    v = (h @ layer["wv"]).reshape(batch, length, c.kv_heads, c.head_dim).transpose(0, 2, 1, 3)
    mixed = attend(q, k, v).transpose(0, 3, 1, 2, 4).reshape(batch, length, -1)
    x = x + mixed @ layer["wo"]
    h = rms_norm(x, layer["ffn_norm"], c.norm_eps)
    return x + (jax.nn.silu(h @ layer["gate"]) * (h @ layer["up"])) @ layer["down"], (q, k, v)


LAYER_NAMES = ("attn_norm", "ffn_norm", "wq", "wk", "wv", "wo", "gate", "up", "down")


def forward(config: Config, params: dict, tokens: jnp.ndarray, keep_qkv: bool = False) -> Any:
    """Logits [batch, time, vocab]; with keep_qkv also a list of (q, k, v) per layer."""
    cos, sin = rope_tables(config, tokens.shape[1])
    x = params["embed"][tokens]
    kept = []
    for i in range(config.layers):
        x, qkv = block(config, x, {n: params[n][i] for n in LAYER_NAMES}, cos, sin)
        kept.append(qkv)
    logits = rms_norm(x, params["final_norm"], config.norm_eps) @ params["embed"].T
    return (logits, kept) if keep_qkv else logits


# The layer whose first KV head is shown where answers stand: two layers before it gather what a
# fact's words are, two after it use what was found.
POINTER_LAYER = 3


def pointer_loss(q: jnp.ndarray, k: jnp.ndarray, pointers: jnp.ndarray) -> jnp.ndarray:
    """How far the first KV head's queries at pointers[..., 0] are from seeing only [..., 1]."""
    at, source = pointers[..., 0], pointers[..., 1]
    chosen = jnp.take_along_axis(q[:, 0], jnp.maximum(at, 0)[:, None, :, None], axis=2)
    logits = jnp.einsum("bgad,bsd->bgas", chosen * q.shape[-1] ** -0.5, k[:, 0])
    future = jnp.arange(k.shape[2])[None, None, None, :] > at[:, None, :, None]
    logits = jnp.where(future, -1e30, logits)
    right = jnp.take_along_axis(logits, jnp.maximum(source, 0)[:, None, :, None], axis=3)[..., 0]
    loss = (jax.nn.logsumexp(logits, axis=-1) - right).mean(axis=1)
    return jnp.sum(jnp.where(at >= 0, loss, 0)) / jnp.maximum(1, jnp.sum(at >= 0))


def weighted_loss(config: Config, params: dict, tokens: jnp.ndarray, weights: jnp.ndarray,
                  pointers: jnp.ndarray, pointer_weight: float) -> tuple[jnp.ndarray, tuple]:
    """Weighted mean of the next token's negative log-likelihood, plus the pointers' share."""
    logits, kept = forward(config, params, tokens[:, :-1], True)
    pointing = pointer_loss(kept[POINTER_LAYER][0], kept[POINTER_LAYER][1], pointers)
    target = jnp.take_along_axis(logits, tokens[:, 1:, None], axis=-1)[..., 0]
    nll = jax.nn.logsumexp(logits, axis=-1) - target
    main = jnp.sum(nll * weights[:, 1:]) / jnp.sum(weights[:, 1:])
    return main + pointer_weight * pointing, (main, pointing)


@partial(jax.jit, static_argnums=0)
def predict(config: Config, params: dict,
            tokens: jnp.ndarray) -> tuple[jnp.ndarray, jnp.ndarray]:
    """Per position of tokens[:, 1:]: is it the most likely token, and its loss in nats."""
    logits = forward(config, params, tokens[:, :-1])
    target = jnp.take_along_axis(logits, tokens[:, 1:, None], axis=-1)[..., 0]
    return jnp.argmax(logits, axis=-1) == tokens[:, 1:], jax.nn.logsumexp(logits, axis=-1) - target

"""The attention predictor's network in JAX: three small convolutions over a history of rows."""

from __future__ import annotations

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

HISTORY = 64
SHAPES = {"conv1.weight": (16, 1, 3, 3), "conv1.bias": (16,), "conv2.weight": (32, 16, 3, 3),
          "conv2.bias": (32,), "conv3.weight": (1, 32, 1), "conv3.bias": (1,)}


def init_random(seed: int) -> dict:
    rng = np.random.default_rng(seed)
    params = {}
    for name, shape in SHAPES.items():
        fan_in = int(np.prod(shape[1:])) if len(shape) > 1 else 0
        values = rng.normal(0, (2 / fan_in) ** 0.5, shape) if fan_in else np.zeros(shape)
        params[name] = jnp.asarray(values, jnp.float32)
    return params


def init_recency(seed: int) -> dict:
    """A start that reads the mean of the history and its last three rows.

    The mean over rows cannot tell a new row from an old one, but the zero padding below the
    last row can: channel 1 of the first layer is one everywhere, so a unit that subtracts a
    large multiple of the channel-1 value below itself is silent but in the last row.
    """
    small = init_random(seed)
    c = {n: np.array(p) * 0.3 for n, p in small.items()}
    w1, b1, w2, b2, w3 = (c[n] for n in list(SHAPES)[:5])
    w1[:4] = 0
    b1[:4] = 0
    w1[0, 0, 1, 1] = 1.0
    b1[1] = 1.0
    w1[2, 0, 0, 1] = 1.0
    w2[:4] = 0
    b2[:4] = 0
    w2[0, 0, 1, 1] = 1.0
    for unit, (channel, row) in enumerate(((0, 1), (2, 1), (2, 0)), start=1):
        w2[unit, channel, row, 1] = 8.0
        w2[unit, 1, 2, 1] = -8.0
    w3[0, :, 0] *= 0.3
    w3[0, :4, 0] = (30.0, 60.0, 30.0, 20.0)
    return {n: jnp.asarray(v, jnp.float32) for n, v in c.items()}


def scores(params: dict, history: jnp.ndarray, inside: jnp.ndarray) -> jnp.ndarray:
    """Score of every column of history [batch][rows][columns]; `inside` masks the crop.

    Columns outside are zeroed before each convolution, which is what padding the crop does.
    """
    mask = inside[:, None, :, None]
    x = history[..., None] * mask

    def conv(x, weight, bias):
        kernel = jnp.transpose(weight, (2, 3, 1, 0))
        return jax.lax.conv_general_dilated(
            x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")) + bias

    x = jax.nn.relu(conv(x, params["conv1.weight"], params["conv1.bias"])) * mask
    x = jax.nn.relu(conv(x, params["conv2.weight"], params["conv2.bias"]))
    return jnp.mean(x, axis=1) @ params["conv3.weight"][0, :, 0] + params["conv3.bias"][0]


def load_weights(folder: Path) -> dict:
    params = {}
    for name, shape in SHAPES.items():
        path = folder / f"{name}.npy"
        try:
            values = np.load(path)
        except (OSError, ValueError) as error:
            raise SystemExit(f"{path}: {error}; expected float32 {shape}") from error
        if values.shape != shape:
            raise SystemExit(f"{path}: shape {values.shape}, expected {shape}")
        params[name] = jnp.asarray(values, jnp.float32)
    return params


def save_weights(params: dict, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in SHAPES:
        np.save(folder / f"{name}.npy", np.asarray(params[name], np.float32))


def write_table(params: dict, path: Path) -> None:
    """All weights as hexadecimal C literals in the order of SHAPES, eight a line."""
    flat = np.concatenate([np.asarray(params[n], np.float32).ravel() for n in SHAPES])
    lines = [", ".join(hexadecimal(v) for v in flat[i:i + 8]) + ","
             for i in range(0, len(flat), 8)]
    path.write_text("\n".join(lines) + "\n")


def hexadecimal(value: np.float32) -> str:
    mantissa, exponent = float(value).hex().split("p")
    sign_and_whole, _, fraction = mantissa.partition(".")
    fraction = fraction.rstrip("0")
    return f"{sign_and_whole}{'.' + fraction if fraction else ''}p{exponent}f"

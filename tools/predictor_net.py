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


def init_features(seed: int) -> dict:
    """First and second layer that read what a decoder can use.

    The mean over rows cannot tell a new row from an old one, but the zero padding below the
    last row can: channel 1 of the first layer is one everywhere, so a unit that subtracts
    channel 1 of the row below is silent but in the last row. Such units carry the last three
    rows, and the readout starts as their weighted sum plus the mean. Channel 3 answers to mass
    in one row alone: a calibration row between sparse ones.
    """
    params = {n: np.array(p) * 0.3 for n, p in init_random(seed).items()}
    w1, b1, w2, b2 = (params[n] for n in list(SHAPES)[:4])
    w1[:11], b1[:11] = 0, 0
    w1[[0, 3, 4, 5, 6, 7, 8], 0, 1, 1] = 1.0
    b1[[1, 4, 5, 6, 10]] = (1.0, -0.02, -0.1, -0.3, 0.05)
    w1[2, 0, 0, 1] = 1.0
    w1[3, 0, [0, 2], 1] = -2.0
    w1[7, 0, 1, [0, 2]] = -1.0
    w1[8, 0, 0, 1] = -1.0
    w1[9, 0, 1, [0, 2]] = 0.5
    w1[10, 0, 1, 1] = -5.0
    averaged = (0, 3, 4, 5, 6, 7, 8, 9, 10)
    newest = ((0, 1), (2, 1), (2, 0), (5, 1), (5, 0), (9, 1), (9, 0), (3, 0), (4, 1), (6, 1),
              (8, 1))
    used = len(averaged) + len(newest)
    w2[:used], b2[:used] = 0, 0
    for unit, channel in enumerate(averaged):
        w2[unit, channel, 1, 1] = 1.0
    for unit, (channel, row) in enumerate(newest, start=len(averaged)):
        w2[unit, channel, row, 1] = 8.0
        w2[unit, 1, 2, 1] = -8.0
    readout = params["conv3.weight"][0, :, 0]
    readout[:] *= 0.01
    readout[:used] = 0
    readout[[0, 7]] = (1.0, 0.1)
    readout[len(averaged):len(averaged) + 7] = np.array(
        (4.0, 3.4, 3.0, -2.0, -2.0, 0.4, 0.3)) * HISTORY / 8
    return {n: jnp.asarray(v, jnp.float32) for n, v in params.items()}


def features(params: dict, history: jnp.ndarray, inside: jnp.ndarray) -> jnp.ndarray:
    """The 32 means [batch][columns][unit] over history [batch][rows][columns].

    `inside` masks the crop: columns outside are zeroed before each convolution, which is what
    padding the crop does.
    """
    mask = inside[:, None, :, None]
    x = history[..., None] * mask

    def conv(x, weight, bias):
        kernel = jnp.transpose(weight, (2, 3, 1, 0))
        return jax.lax.conv_general_dilated(
            x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")) + bias

    x = jax.nn.relu(conv(x, params["conv1.weight"], params["conv1.bias"])) * mask
    x = jax.nn.relu(conv(x, params["conv2.weight"], params["conv2.bias"]))
    return jnp.mean(x, axis=1)


def scores(params: dict, history: jnp.ndarray, inside: jnp.ndarray) -> jnp.ndarray:
    """Score of every column."""
    return features(params, history, inside) @ params["conv3.weight"][0, :, 0] \
        + params["conv3.bias"][0]


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

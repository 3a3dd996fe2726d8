"""The attention predictor's network in JAX: three small convolutions over a history of rows."""

from __future__ import annotations

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from convert_predictor import SHAPES

HISTORY = 64


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


def activations(params: dict, history: jnp.ndarray, inside: jnp.ndarray) -> jnp.ndarray:
    """Second layer's output [batch][rows][columns][unit] over history [batch][rows][columns].

    `inside` masks the crop: columns outside are zeroed before each convolution, which is what
    padding the crop does.
    """
    mask = inside[:, None, :, None]
    x = history[..., None] * mask

    def conv(x: jnp.ndarray, weight: jnp.ndarray, bias: jnp.ndarray) -> jnp.ndarray:
        kernel = jnp.transpose(weight, (2, 3, 1, 0))
        return jax.lax.conv_general_dilated(
            x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")) + bias

    x = jax.nn.relu(conv(x, params["conv1.weight"], params["conv1.bias"])) * mask
    return jax.nn.relu(conv(x, params["conv2.weight"], params["conv2.bias"]))


def row_scores(params: dict, history: jnp.ndarray, inside: jnp.ndarray) -> jnp.ndarray:
    """What each row adds to the scores of its columns: [batch][rows][columns]."""
    return activations(params, history, inside) @ params["conv3.weight"][0, :, 0]


def scores(params: dict, history: jnp.ndarray, inside: jnp.ndarray) -> jnp.ndarray:
    """Score of every column."""
    return jnp.mean(row_scores(params, history, inside), axis=1) + params["conv3.bias"][0]


def taps(x: jnp.ndarray) -> jnp.ndarray:
    """Each column beside its two neighbours: [..., columns, c] -> [..., columns, 3 c]."""
    padded = jnp.pad(x, [(0, 0)] * (x.ndim - 2) + [(1, 1), (0, 0)])
    return jnp.concatenate([padded[..., :-2, :], x, padded[..., 2:, :]], axis=-1)


def row_taps(weight: jnp.ndarray) -> list[jnp.ndarray]:
    """A kernel [out][in][3][3] as one matrix [3 in][out] for each of its three rows."""
    return [jnp.transpose(weight[:, :, k], (2, 1, 0)).reshape(-1, len(weight)) for k in range(3)]


def stretch_scores(params: dict, rows: jnp.ndarray, inside: jnp.ndarray) -> jnp.ndarray:
    """Scores [batch][steps][columns] of all windows of HISTORY rows in rows [batch][rows][columns].

    Windows share all rows but their first two and last two, which see the zero padding: the rest is
    computed once for all windows.
    """
    mask = inside[:, None, :, None]
    steps, last = rows.shape[1] - HISTORY + 1, HISTORY - 1

    def layer1(sums: jnp.ndarray) -> jnp.ndarray:
        return taps(jax.nn.relu(sums + params["conv1.bias"]) * mask)

    def layer2(sums: jnp.ndarray) -> jnp.ndarray:
        return jax.nn.relu(sums + params["conv2.bias"]) @ params["conv3.weight"][0, :, 0]

    x = taps(rows[..., None] * mask)
    a0, a1, a2 = (x @ w for w in row_taps(params["conv1.weight"]))
    inner = layer1(a0[:, :-2] + a1[:, 1:-1] + a2[:, 2:])
    top = layer1(a1[:, :steps] + a2[:, 1:steps + 1])
    bottom = layer1(a0[:, last - 1:-1] + a1[:, last:])
    w0, w1, w2 = row_taps(params["conv2.weight"])
    p0, p1, p2 = inner @ w0, inner @ w1, inner @ w2

    def row(sums: jnp.ndarray, of_window: int) -> jnp.ndarray:
        return sums[:, of_window - 1:of_window - 1 + steps]

    shared = layer2(p0[:, :-2] + p1[:, 1:-1] + p2[:, 2:])
    running = jnp.cumsum(jnp.pad(shared, ((0, 0), (1, 0), (0, 0))), axis=1)
    total = running[:, HISTORY - 4:] - running[:, :4 - HISTORY]
    total += layer2(top @ w1 + row(p2, 1))
    total += layer2(top @ w0 + row(p1, 1) + row(p2, 2))
    total += layer2(row(p0, last - 2) + row(p1, last - 1) + bottom @ w2)
    total += layer2(row(p0, last - 1) + bottom @ w1)
    return total / HISTORY + params["conv3.bias"][0]


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

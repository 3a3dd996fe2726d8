"""Turns predictor weights into the file that kvsift_predictor_load reads.

The input is one of: a PyTorch checkpoint (.pth, a zip of raw floats; PyTorch is not needed), a .safetensors file, or a
folder of .npy files. It must hold conv1.weight, conv1.bias, conv2.weight, conv2.bias, conv3.weight and conv3.bias.

    python tools/convert_predictor.py best_model.pth predictor.bin
    python tools/convert_predictor.py best_model.safetensors default_weights.inc --format c
"""

from __future__ import annotations

import argparse
import io
import json
import math
import pickle
import struct
import sys
import zipfile
from pathlib import Path
from typing import Any

NAMES = ("conv1.weight", "conv1.bias", "conv2.weight", "conv2.bias", "conv3.weight", "conv3.bias")
SIZES = (144, 16, 4608, 32, 32, 1)
MOST = 1e6  # the loader's bound on a parameter

Tensors = dict[str, list[float]]


def floats_of(raw: bytes, what: str) -> list[float]:
    if len(raw) % 4:
        raise ValueError(f"{what}: {len(raw)} bytes are no float32 values")
    return list(struct.unpack(f"<{len(raw) // 4}f", raw))


class Storage:
    """Where a tensor's values lie in the zip."""

    def __init__(self, key: str) -> None:
        self.key = key


class CheckpointReader(pickle.Unpickler):
    """Reads the one pickle of a checkpoint, and knows nothing but tensors: no other object can be made."""

    def find_class(self, module: str, name: str) -> Any:
        known = {
            ("collections", "OrderedDict"): dict,
            ("torch._utils", "_rebuild_tensor_v2"): self.tensor,
            ("torch", "FloatStorage"): "float32",
        }
        if (module, name) not in known:
            raise ValueError(f"the checkpoint needs {module}.{name}: only float32 tensors are read")
        return known[(module, name)]

    def persistent_load(self, pid: Any) -> Storage:
        kind, storage_type, key = pid[0], pid[1], pid[2]
        if kind != "storage" or storage_type != "float32":
            raise ValueError("the checkpoint holds something else than float32 storage")
        return Storage(str(key))

    @staticmethod
    def tensor(storage: Storage, offset: int, size: tuple[int, ...], stride: tuple[int, ...],
               *_: Any) -> tuple[str, int, int]:
        expected = 1
        for extent, step in zip(reversed(size), reversed(stride)):
            if extent != 1 and step != expected:
                raise ValueError("a tensor of the checkpoint is not contiguous")
            expected *= extent
        return storage.key, offset, expected


def read_checkpoint(path: Path) -> Tensors:
    with zipfile.ZipFile(path) as archive:
        index = next((n for n in archive.namelist() if n.endswith("/data.pkl")), None)
        if index is None:
            raise ValueError(f"{path}: no data.pkl, not a checkpoint")
        root = index[: -len("data.pkl")]
        found = CheckpointReader(io.BytesIO(archive.read(index))).load()
        tensors: Tensors = {}
        for name, place in found.items():
            key, offset, count = place
            raw = archive.read(f"{root}data/{key}")[4 * offset : 4 * (offset + count)]
            tensors[str(name)] = floats_of(raw, str(name))
    return tensors


def read_safetensors(path: Path) -> Tensors:
    data = path.read_bytes()
    (length,) = struct.unpack_from("<Q", data)
    header = json.loads(data[8 : 8 + length])
    tensors: Tensors = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        if entry["dtype"] != "F32":
            raise ValueError(f"{name} is {entry['dtype']}, not F32")
        begin, end = entry["data_offsets"]
        tensors[name] = floats_of(data[8 + length + begin : 8 + length + end], name)
    return tensors


def read_npy(path: Path) -> list[float]:
    data = path.read_bytes()
    if data[:6] != b"\x93NUMPY":
        raise ValueError(f"{path}: not a .npy file")
    wide = data[6] >= 2
    (length,) = struct.unpack_from("<I" if wide else "<H", data, 8)
    begin = (12 if wide else 10) + length
    header = data[begin - length : begin].decode("latin-1")
    if "'<f4'" not in header or "'fortran_order': False" not in header:
        raise ValueError(f"{path}: not little-endian float32 in C order")
    return floats_of(data[begin:], str(path))


def read_weights(path: Path) -> list[float]:
    """All parameters in the file's order, from any of the three kinds of input."""
    if path.is_dir():
        tensors = {name: read_npy(path / f"{name}.npy") for name in NAMES}
    elif path.suffix == ".safetensors":
        tensors = read_safetensors(path)
    else:
        tensors = read_checkpoint(path)
    parameters: list[float] = []
    for name, size in zip(NAMES, SIZES):
        # Checkpoints may carry a prefix such as "module.".
        matches = [key for key in tensors if key == name or key.endswith("." + name)]
        if len(matches) != 1:
            raise ValueError(f"{path}: {len(matches)} tensors are named {name}")
        values = tensors[matches[0]]
        if len(values) != size:
            raise ValueError(f"{name} has {len(values)} values, not {size}")
        if not all(math.isfinite(v) and abs(v) <= MOST for v in values):
            raise ValueError(f"{name} has a value that is not finite or beyond {MOST:g}")
        parameters += values
    return parameters


def checksum(data: bytes) -> int:
    """FNV-1a over 64-bit words, as src/core/checksum.h has it."""
    mask, prime, state = (1 << 64) - 1, 0x100000001B3, 0xCBF29CE484222325
    whole = len(data) // 8 * 8
    for (word,) in struct.iter_unpack("<Q", data[:whole]):
        state = (state ^ word) * prime & mask
        state ^= state >> 32
    for byte in data[whole:]:
        state = (state ^ byte) * prime & mask
    return state


def binary(parameters: list[float]) -> bytes:
    payload = struct.pack(f"<{len(parameters)}f", *parameters)
    return struct.pack("<8sIIQ", b"KVSIFTPW", 1, len(parameters), checksum(payload)) + payload


def c_source(parameters: list[float]) -> bytes:
    lines = []
    for i in range(0, len(parameters), 6):
        lines.append(" ".join(hex_float(v) + "f," for v in parameters[i : i + 6]))
    return ("\n".join(lines) + "\n").encode()


def hex_float(value: float) -> str:
    """A float32 as a C constant without the zeros of the float64 it is printed as."""
    mantissa, _, exponent = value.hex().partition("p")
    if "." in mantissa:
        mantissa = mantissa.rstrip("0").rstrip(".")
    return f"{mantissa}p{exponent}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("input", type=Path, help=".pth, .safetensors, or a folder of .npy files")
    parser.add_argument("output", type=Path, help="file to write")
    parser.add_argument("--format", choices=("binary", "c"), default="binary",
                        help="binary for kvsift_predictor_load, c for src/predictor/default_weights.inc")
    args = parser.parse_args()
    try:
        parameters = read_weights(args.input)
    except (ValueError, OSError, KeyError, struct.error, zipfile.BadZipFile, pickle.UnpicklingError) as error:
        print(f"{args.input}: {error}", file=sys.stderr)
        return 1
    data = binary(parameters) if args.format == "binary" else c_source(parameters)
    args.output.write_bytes(data)
    print(f"{args.output}: {len(parameters)} parameters, {len(data)} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())

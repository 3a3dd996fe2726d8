"""Turns predictor weights into the file that kvsift_predictor_load reads.

The input is one of: a PyTorch checkpoint (.pth, a zip of raw floats; PyTorch is not needed), a .safetensors file, or a
folder of .npy files. It must hold conv1.weight, conv1.bias, conv2.weight, conv2.bias, conv3.weight and conv3.bias.

    python tools/convert_predictor.py best_model.pth predictor.bin
    python tools/convert_predictor.py best_model.safetensors default_weights.inc --format c
"""

from __future__ import annotations

import argparse
import ast
import io
import json
import math
import pickle
import struct
import sys
import zipfile
import zlib
from pathlib import Path
from typing import Any, NamedTuple

SHAPES = {"conv1.weight": (16, 1, 3, 3), "conv1.bias": (16,), "conv2.weight": (32, 16, 3, 3),
          "conv2.bias": (32,), "conv3.weight": (1, 32, 1), "conv3.bias": (1,)}
MOST = 1e6  # the loader's bound on a parameter


class Tensor(NamedTuple):
    shape: tuple[int, ...]
    values: list[float]


Tensors = dict[str, Tensor]


def floats_of(raw: bytes, what: str) -> list[float]:
    if len(raw) % 4:
        raise ValueError(f"{what}: {len(raw)} bytes are no float32 values")
    return list(struct.unpack(f"<{len(raw) // 4}f", raw))


class Storage:
    """Where a tensor's values lie in the zip."""

    def __init__(self, key: str) -> None:
        self.key = key


class Place(NamedTuple):
    """What a tensor of a checkpoint is before its storage has been read."""
    key: str
    offset: int
    shape: tuple[int, ...]


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
               *_: Any) -> Place:
        expected = 1
        for extent, step in zip(reversed(size), reversed(stride)):
            if extent != 1 and step != expected:
                raise ValueError("a tensor of the checkpoint is not contiguous")
            expected *= extent
        return Place(storage.key, int(offset), tuple(int(extent) for extent in size))


def places_of(data: bytes) -> dict[str, Place]:
    try:
        found = CheckpointReader(io.BytesIO(data)).load()
    except Exception as error:  # bytes that are no pickle raise nearly anything
        raise ValueError(f"data.pkl cannot be read ({error})") from error
    if not isinstance(found, dict) or not all(isinstance(place, Place) for place in found.values()):
        raise ValueError("data.pkl holds something else than a dict of tensors")
    return {str(name): place for name, place in found.items()}


def read_checkpoint(path: Path) -> Tensors:
    with zipfile.ZipFile(path) as archive:
        index = next((n for n in archive.namelist() if n.endswith("/data.pkl")), None)
        if index is None:
            raise ValueError("no data.pkl, not a checkpoint")
        root = index[: -len("data.pkl")]
        tensors: Tensors = {}
        for name, place in places_of(archive.read(index)).items():
            end = place.offset + math.prod(place.shape)
            raw = archive.read(f"{root}data/{place.key}")[4 * place.offset : 4 * end]
            tensors[name] = Tensor(place.shape, floats_of(raw, name))
    return tensors


def read_entry(name: str, entry: Any, data: bytes) -> Tensor:
    """A tensor by its entry in a .safetensors header, which is anything that JSON can say."""
    try:
        kind, shape, (begin, end) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
        if not 0 <= begin <= end <= len(data):
            raise ValueError(f"bytes {begin} to {end} of {len(data)}")
        raw = data[begin:end]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{name}: no dtype, shape and data_offsets ({error})") from error
    if kind != "F32":
        raise ValueError(f"{name} is {kind}, not F32")
    return Tensor(shape, floats_of(raw, name))


def read_safetensors(path: Path) -> Tensors:
    data = path.read_bytes()
    begin = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:begin])
    if not isinstance(header, dict):
        raise ValueError("not a .safetensors file: its header is no object")
    return {name: read_entry(name, entry, data[begin:]) for name, entry in header.items()
            if name != "__metadata__"}


def read_npy(path: Path) -> Tensor:
    data = path.read_bytes()
    if data[:6] != b"\x93NUMPY":
        raise ValueError(f"{path.name}: not a .npy file")
    wide = data[6:7] >= b"\2"
    try:
        (length,) = struct.unpack_from("<I" if wide else "<H", data, 8)
        begin = (12 if wide else 10) + length
        header = ast.literal_eval(data[begin - length : begin].decode("latin-1"))
        kind, fortran, shape = header["descr"], header["fortran_order"], tuple(header["shape"])
    except (struct.error, SyntaxError, ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{path.name}: not a .npy file ({error})") from error
    if kind != "<f4" or fortran:
        raise ValueError(f"{path.name}: not little-endian float32 in C order")
    return Tensor(shape, floats_of(data[begin:], path.name))


def read_weights(path: Path) -> list[float]:
    """All parameters in the file's order, from any of the three kinds of input."""
    if path.is_dir():
        tensors = {name: read_npy(path / f"{name}.npy") for name in SHAPES}
    elif path.suffix == ".safetensors":
        tensors = read_safetensors(path)
    else:
        tensors = read_checkpoint(path)
    parameters: list[float] = []
    for name, shape in SHAPES.items():
        # Checkpoints may carry a prefix such as "module.".
        matches = [key for key in tensors if key == name or key.endswith("." + name)]
        if len(matches) != 1:
            raise ValueError(f"{len(matches)} tensors are named {name}")
        found, values = tensors[matches[0]]
        if found != shape:
            raise ValueError(f"{name} has shape {list(found)}, not {list(shape)}")
        if len(values) != math.prod(shape):
            raise ValueError(f"{name} has {len(values)} values, not {math.prod(shape)}")
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


# A damaged zip raises any of the last four.
UNREADABLE = (ValueError, OSError, KeyError, zipfile.BadZipFile, EOFError, RuntimeError, zlib.error)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("input", type=Path, help=".pth, .safetensors, or a folder of .npy files")
    parser.add_argument("output", type=Path, help="file to write")
    parser.add_argument("--format", choices=("binary", "c"), default="binary",
                        help="binary for kvsift_predictor_load, c for src/predictor/default_weights.inc")
    args = parser.parse_args()
    try:
        parameters = read_weights(args.input)
    except UNREADABLE as error:
        print(f"{args.input}: {error}", file=sys.stderr)
        return 1
    data = binary(parameters) if args.format == "binary" else c_source(parameters)
    try:
        args.output.write_bytes(data)
    except OSError as error:
        print(f"{args.output}: cannot be written ({error.strerror})", file=sys.stderr)
        return 1
    print(f"{args.output}: {len(parameters)} parameters, {len(data)} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""tools/convert_predictor.py reads all its kinds of input to the same parameters, and refuses what is not one."""

from __future__ import annotations

import io
import json
import pickle
import struct
import sys
import tempfile
import types
import unittest
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))
import convert_predictor as convert  # noqa: E402

FOLDER = ROOT / "tests/conformance/data/attention_predictor/random_weights"


def split(parameters: list[float]) -> dict[str, list[float]]:
    tensors, at = {}, 0
    for name, size in zip(convert.NAMES, convert.SIZES):
        tensors[name] = parameters[at : at + size]
        at += size
    return tensors


class FloatStorage:
    """Stands for PyTorch's class while a checkpoint is pickled as PyTorch pickles one."""


class Tensor:
    def __init__(self, key: str, count: int) -> None:
        self.key, self.count = key, count

    def __reduce__(self):
        return rebuild, (self.key, 0, (self.count,), (1,), False, {})


def rebuild(*_):
    raise NotImplementedError


class CheckpointPickler(pickle.Pickler):
    def persistent_id(self, obj):
        if isinstance(obj, str) and obj.startswith("key"):
            return ("storage", FloatStorage, obj[3:], "cpu", 0)
        return None


def write_checkpoint(path: Path, tensors: dict[str, list[float]]) -> None:
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")
    torch.FloatStorage, utils._rebuild_tensor_v2 = FloatStorage, rebuild
    FloatStorage.__module__, FloatStorage.__qualname__ = "torch", "FloatStorage"
    rebuild.__module__, rebuild.__qualname__ = "torch._utils", "_rebuild_tensor_v2"
    sys.modules.update({"torch": torch, "torch._utils": utils})
    try:
        out = io.BytesIO()
        CheckpointPickler(out, protocol=2).dump(
            {name: Tensor(f"key{i}", len(values)) for i, (name, values) in enumerate(tensors.items())})
    finally:
        del sys.modules["torch"], sys.modules["torch._utils"]
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("best_model/data.pkl", out.getvalue())
        for i, values in enumerate(tensors.values()):
            archive.writestr(f"best_model/data/{i}", struct.pack(f"<{len(values)}f", *values))


def write_safetensors(path: Path, tensors: dict[str, list[float]]) -> None:
    header, raw = {}, b""
    for name, values in tensors.items():
        begin = len(raw)
        raw += struct.pack(f"<{len(values)}f", *values)
        header[name] = {"dtype": "F32", "shape": [len(values)], "data_offsets": [begin, len(raw)]}
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + raw)


class ConvertTest(unittest.TestCase):
    def setUp(self) -> None:
        self.parameters = convert.read_weights(FOLDER)
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name)

    def tearDown(self) -> None:
        self.folder.cleanup()

    def test_same_from_all_kinds(self) -> None:
        self.assertEqual(len(self.parameters), 4833)
        write_checkpoint(self.path / "w.pth", split(self.parameters))
        write_safetensors(self.path / "w.safetensors", split(self.parameters))
        self.assertEqual(convert.read_weights(self.path / "w.pth"), self.parameters)
        self.assertEqual(convert.read_weights(self.path / "w.safetensors"), self.parameters)

    def test_binary(self) -> None:
        data = convert.binary(self.parameters)
        self.assertEqual(data[:8], b"KVSIFTPW")
        self.assertEqual(len(data), 24 + 4 * 4833)
        self.assertEqual(list(struct.unpack("<4833f", data[24:])), self.parameters)

    def test_c_source(self) -> None:
        text = convert.c_source(self.parameters).decode()
        values = [float.fromhex(word.rstrip("f")) for word in text.replace(",", " ").split()]
        self.assertEqual(values, self.parameters)

    def test_refuses(self) -> None:
        tensors = split(self.parameters)
        tensors["conv1.bias"] = tensors["conv1.bias"][:-1]
        write_safetensors(self.path / "short.safetensors", tensors)
        with self.assertRaisesRegex(ValueError, "conv1.bias has 15 values"):
            convert.read_weights(self.path / "short.safetensors")
        tensors = split(self.parameters)
        tensors["conv3.bias"] = [float("nan")]
        write_safetensors(self.path / "nan.safetensors", tensors)
        with self.assertRaisesRegex(ValueError, "not finite"):
            convert.read_weights(self.path / "nan.safetensors")

    def test_makes_no_other_object(self) -> None:
        with zipfile.ZipFile(self.path / "evil.pth", "w") as archive:
            archive.writestr("m/data.pkl", b"cos\nsystem\n(S'true'\ntR.")
        with self.assertRaisesRegex(ValueError, "os.system"):
            convert.read_weights(self.path / "evil.pth")


if __name__ == "__main__":
    unittest.main()

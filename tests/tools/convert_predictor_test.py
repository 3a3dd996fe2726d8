"""tools/convert_predictor.py reads all its kinds of input to the same parameters, and refuses what is not one."""

from __future__ import annotations

import io
import json
import math
import pickle
import struct
import subprocess
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


def split(parameters: list[float]) -> convert.Tensors:
    tensors, at = {}, 0
    for name, shape in convert.SHAPES.items():
        tensors[name] = convert.Tensor(shape, parameters[at : at + math.prod(shape)])
        at += math.prod(shape)
    return tensors


class FloatStorage:
    """Stands for PyTorch's class while a checkpoint is pickled as PyTorch pickles one."""


class TorchTensor:
    def __init__(self, key: str, shape: tuple[int, ...]) -> None:
        self.key, self.shape = key, shape

    def __reduce__(self) -> tuple:
        strides = tuple(math.prod(self.shape[i + 1:]) for i in range(len(self.shape)))
        return rebuild, (self.key, 0, self.shape, strides, False, {})


def rebuild(*_: object) -> None:
    raise NotImplementedError


class CheckpointPickler(pickle.Pickler):
    def persistent_id(self, obj: object) -> tuple | None:
        if isinstance(obj, str) and obj.startswith("key"):
            return ("storage", FloatStorage, obj[3:], "cpu", 0)
        return None


def write_pickle(path: Path, data: bytes) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("best_model/data.pkl", data)


def write_checkpoint(path: Path, tensors: convert.Tensors) -> None:
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")
    torch.FloatStorage, utils._rebuild_tensor_v2 = FloatStorage, rebuild
    FloatStorage.__module__, FloatStorage.__qualname__ = "torch", "FloatStorage"
    rebuild.__module__, rebuild.__qualname__ = "torch._utils", "_rebuild_tensor_v2"
    sys.modules.update({"torch": torch, "torch._utils": utils})
    try:
        out = io.BytesIO()
        CheckpointPickler(out, protocol=2).dump(
            {name: TorchTensor(f"key{i}", tensor.shape) for i, (name, tensor) in enumerate(tensors.items())})
    finally:
        del sys.modules["torch"], sys.modules["torch._utils"]
    write_pickle(path, out.getvalue())
    with zipfile.ZipFile(path, "a") as archive:
        for i, (_, values) in enumerate(tensors.values()):
            archive.writestr(f"best_model/data/{i}", struct.pack(f"<{len(values)}f", *values))


def write_safetensors(path: Path, tensors: convert.Tensors) -> None:
    header, raw = {}, b""
    for name, (shape, values) in tensors.items():
        begin = len(raw)
        raw += struct.pack(f"<{len(values)}f", *values)
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [begin, len(raw)]}
    write_header(path, header, raw)


def write_header(path: Path, header: object, raw: bytes = b"") -> None:
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + raw)


def write_folder(path: Path, tensors: convert.Tensors) -> None:
    path.mkdir()
    for name, (shape, values) in tensors.items():
        header = str({"descr": "<f4", "fortran_order": False, "shape": shape}).encode()
        (path / f"{name}.npy").write_bytes(b"\x93NUMPY\1\0" + struct.pack("<H", len(header)) + header +
                                           struct.pack(f"<{len(values)}f", *values))


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
        write_folder(self.path / "folder", split(self.parameters))
        self.assertEqual(convert.read_weights(self.path / "folder"), self.parameters)

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
        shape, values = tensors["conv1.bias"]
        tensors["conv1.bias"] = convert.Tensor(shape, values[:-1])
        write_safetensors(self.path / "short.safetensors", tensors)
        with self.assertRaisesRegex(ValueError, "conv1.bias has 15 values"):
            convert.read_weights(self.path / "short.safetensors")
        tensors = split(self.parameters)
        tensors["conv3.bias"] = convert.Tensor((1,), [float("nan")])
        write_safetensors(self.path / "nan.safetensors", tensors)
        with self.assertRaisesRegex(ValueError, "not finite"):
            convert.read_weights(self.path / "nan.safetensors")

    def test_refuses_other_layouts(self) -> None:
        tensors = split(self.parameters)
        tensors["conv2.weight"] = convert.Tensor((16, 32, 3, 3), tensors["conv2.weight"].values)
        write_checkpoint(self.path / "w.pth", tensors)
        write_safetensors(self.path / "w.safetensors", tensors)
        write_folder(self.path / "folder", tensors)
        for kind in ("w.pth", "w.safetensors", "folder"):
            with self.assertRaisesRegex(ValueError, r"conv2.weight has shape \[16, 32, 3, 3\], not"):
                convert.read_weights(self.path / kind)

    def refused(self, kind: str, output: str = "out.bin") -> str:
        done = subprocess.run([sys.executable, convert.__file__, self.path / kind, self.path / output],
                              capture_output=True, text=True)
        self.assertEqual(done.returncode, 1, done.stderr)
        self.assertEqual(done.stderr.count("\n"), 1, done.stderr)
        return done.stderr

    def test_bad_input_gets_a_sentence(self) -> None:
        for data in (b"", b"\x80\x02", pickle.dumps(7), pickle.dumps([1]), pickle.dumps({"conv1.bias": 7}),
                     b"ctorch\nFloatStorage\n.", b"ctorch._utils\n_rebuild_tensor_v2\n(I1\ntR."):
            write_pickle(self.path / "bad.pth", data)
            self.assertIn("data.pkl", self.refused("bad.pth"))
        for header in ([], 7, {"conv1.bias": 7}, {"conv1.bias": {"dtype": "F32", "shape": [16], "data_offsets": 9}},
                       {"conv1.bias": {"dtype": "F32", "shape": [16], "data_offsets": [0, 64]}}):
            write_header(self.path / "bad.safetensors", header)
            self.refused("bad.safetensors")
        write_folder(self.path / "folder", split(self.parameters))
        for data in (b"", b"\x93NUMPY", b"\x93NUMPY\1\0\2\0{}", b"\x93NUMPY\1\0\2\0a("):
            (self.path / "folder/conv2.bias.npy").write_bytes(data)
            self.assertIn("conv2.bias.npy: not a .npy file", self.refused("folder"))
        (self.path / "no.zip.pth").write_bytes(b"x")
        self.refused("no.zip.pth")
        self.refused("nothing.pth")

    def test_output_that_cannot_be_written_gets_a_sentence(self) -> None:
        write_folder(self.path / "folder", split(self.parameters))
        self.assertIn("cannot be written (No such file", self.refused("folder", "nowhere/out.bin"))

    def test_makes_no_other_object(self) -> None:
        with zipfile.ZipFile(self.path / "evil.pth", "w") as archive:
            archive.writestr("m/data.pkl", b"cos\nsystem\n(S'true'\ntR.")
        with self.assertRaisesRegex(ValueError, "os.system"):
            convert.read_weights(self.path / "evil.pth")


if __name__ == "__main__":
    unittest.main()

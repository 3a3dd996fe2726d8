"""Attention rows of the example model by tools/ (JAX) against the C engine's: python import_gguf_test.py DECODE"""

import json
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))

try:
    import jax.numpy as jnp
    import numpy as np

    import model
    from dump_rows import causal_rows
    from import_gguf import read_model
except ImportError as error:
    print(f"skipped: {error}; pip install -r tools/requirements.txt to run this test")
    sys.exit(77)

DECODE = sys.argv.pop(1)
MODEL = ROOT / "examples" / "model" / "kvsift-tiny.gguf"
TEXT = " ".join(f"The code of the red fox is {i * i}, and the owl said:  \"nothing\"." for i in range(9))


class Gguf(unittest.TestCase):
    def test_rows_are_the_engines(self) -> None:
        with tempfile.TemporaryDirectory() as place:
            done = subprocess.run([DECODE, "--prompt", TEXT, "--dump-rows", place, "--dense-layers", "0"],
                                  capture_output=True, text=True)
            self.assertEqual(done.returncode, 0, done.stderr)
            expected = np.load(Path(place) / "rows.npy").astype(np.float32)
            streams = json.loads((Path(place) / "meta.json").read_text())["streams"]
        config, params, tokenizer = read_model(MODEL)
        tokens = [tokenizer.bos_id(), *tokenizer.encode(TEXT)]
        self.assertEqual(len(tokens), expected.shape[2])
        _, kept = model.forward(config, params, jnp.asarray([tokens]), keep_qkv=True)
        for row, stream in zip(expected, streams, strict=True):
            q, k, _ = (np.asarray(x[0]) for x in kept[stream["layer"]])
            q = q.reshape(-1, len(tokens), config.head_dim).swapaxes(0, 1)[-expected.shape[1]:]
            rows = causal_rows(q, k.swapaxes(0, 1))[stream["head"]].astype(np.float32)
            np.testing.assert_allclose(rows, row, atol=1e-2, err_msg=str(stream))
        self.assertGreater(expected.max(), 0.5, "rows are flat: nothing was compared")

    def test_bad_input_is_named(self) -> None:
        for path in (ROOT / "nothing.gguf", ROOT / "README.md"):
            with self.assertRaisesRegex(SystemExit, f"{path.name}: cannot be read"):
                read_model(path)


if __name__ == "__main__":
    unittest.main()

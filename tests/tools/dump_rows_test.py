"""dump_rows.py on a small Hugging Face model with random weights, made here: nothing is fetched."""

import json
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

TOOL = Path(__file__).resolve().parents[2] / "tools" / "dump_rows.py"

try:
    import numpy as np
    import torch
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers
except ImportError as error:
    print(f"skipped: {error}; pip install numpy torch transformers to run this test")
    sys.exit(77)

LAYERS, HEADS, LENGTH, ROWS, SKIPPED = 3, 4, 48, 20, 1
TEXT = "the cat sat on the mat and the dog ran to the sea " * 12


def make_model(folder: Path) -> transformers.LlamaForCausalLM:
    torch.manual_seed(1)
    config = transformers.LlamaConfig(
        vocab_size=16, hidden_size=32, intermediate_size=48, num_hidden_layers=LAYERS,
        num_attention_heads=HEADS, num_key_value_heads=2, max_position_embeddings=64,
        initializer_range=0.5)
    config._attn_implementation = "eager"
    model = transformers.LlamaForCausalLM(config).eval()
    model.save_pretrained(folder)
    words = ["<unk>", *sorted(set(TEXT.split()))]
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>").save_pretrained(folder)
    return model


class HuggingFace(unittest.TestCase):
    @classmethod
    def setUpClass(cls) -> None:
        cls.place = tempfile.TemporaryDirectory()
        cls.root = Path(cls.place.name)
        cls.model = make_model(cls.root / "model")
        (cls.root / "text").mkdir()
        (cls.root / "text" / "a.txt").write_text(TEXT)
        (cls.root / "text" / "b.txt").write_text("sea " + TEXT)

    @classmethod
    def tearDownClass(cls) -> None:
        cls.place.cleanup()

    def dump(self, *more: str, model: str = "model") -> subprocess.CompletedProcess:
        return subprocess.run(
            [sys.executable, TOOL, self.root / "out", "--hugging-face", self.root / model,
             "--text", self.root / "text", "--rows", str(ROWS), *more],
            capture_output=True, text=True)

    def full_weights(self, first: str) -> list:
        """By one pass over the whole text, where the tool makes two."""
        tokenizer = transformers.AutoTokenizer.from_pretrained(self.root / "model")
        ids = tokenizer((self.root / "text" / first).read_text(), return_tensors="pt").input_ids
        with torch.no_grad():
            return self.model(ids[:, :LENGTH], output_attentions=True).attentions

    def test_rows_are_the_models(self) -> None:
        done = self.dump("--length", str(LENGTH), "--skip-layers", str(SKIPPED))
        self.assertEqual(done.returncode, 0, done.stderr)
        rows = np.load(self.root / "out" / "rows.npy")
        meta = json.loads((self.root / "out" / "meta.json").read_text())
        self.assertEqual(rows.shape, (2 * (LAYERS - SKIPPED) * HEADS, ROWS, LENGTH))
        self.assertEqual(meta["first_length"], LENGTH - ROWS + 1)
        full = {name: self.full_weights(name) for name in ("a.txt", "b.txt")}
        for row, stream in zip(rows, meta["streams"], strict=True):
            expected = full[stream["text"]][stream["layer"]][0, stream["head"], -ROWS:]
            np.testing.assert_allclose(row, expected.numpy(), atol=1e-3)
        self.assertGreater(rows.max(), 2 / LENGTH, "rows are flat: nothing was compared")

    def test_bad_input_is_named(self) -> None:
        for arguments, model, expected in (
                (["--length", "65"], "model", "made for 64 tokens"),
                (["--length", str(LENGTH), "--skip-layers", "3"], "model", "leaves none"),
                (["--length", str(LENGTH)], "text", "expected a causal language model"),
                (["--length", "10"], "model", "--rows is 20")):
            done = self.dump(*arguments, model=model)
            self.assertNotEqual(done.returncode, 0)
            self.assertIn(expected, done.stderr)
            self.assertNotIn("Traceback", done.stderr)


if __name__ == "__main__":
    unittest.main()

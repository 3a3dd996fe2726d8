"""report.py's pictures show the cells that kvsift-eval wrote, and its page needs nothing else."""

from __future__ import annotations

import struct
import sys
import unittest
import zlib
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))
import picture  # noqa: E402
import report  # noqa: E402

HEAD = {"layer": 1, "head": 2, "rows": ["A8", "", "_Bj"]}


def results() -> dict:
    policies = [{"name": "full 100%"}, {"name": "ema <1/8>"}]
    heads = [{"policy": 1, "layer": 1, "head": h, "rows": 4, "kept": 0.1, "recovery": 0.5 + h / 10,
              "ceiling": 1.0, "output_error": 0.2} for h in range(2)]
    text = [{"policy": 1, "windows": 2, "tokens": 8, "agreement": 0.9, "agreement_low": 0.88,
             "agreement_high": 0.92, "divergence": 0.01, "divergence_low": None,
             "divergence_high": None, "bits_per_byte": 2.0}]
    tasks = [{"task": "needle", "length": 1024, "depth": 0.5, "policy": 1, "asked": 4, "right": 3,
              "share": 0.75}]
    return {"model": "m.gguf", "policies": policies, "tasks": tasks, "text": text, "heads": heads,
            "picture": {"policy": 1, "block_tokens": 16, "first_tokens": 33, "heads": [HEAD]}}


def pixels(image: bytes) -> tuple[int, list[bytes], bytes]:
    """Width, lines and palette of a PNG with one byte a pixel and no filters."""
    at, found = 8, {}
    while at < len(image):
        (length,), kind = struct.unpack_from(">I", image, at), image[at + 4:at + 8]
        data = image[at + 8:at + 8 + length]
        assert struct.unpack_from(">I", image, at + 8 + length)[0] == zlib.crc32(kind + data)
        found[kind], at = data, at + 12 + length
    width, height = struct.unpack_from(">II", found[b"IHDR"])
    raw = zlib.decompress(found[b"IDAT"])
    assert len(raw) == height * (width + 1)
    lines = [raw[y * (width + 1):(y + 1) * (width + 1)] for y in range(height)]
    return width, [line[1:] for line in lines if line[0] == 0], found[b"PLTE"]


class Report(unittest.TestCase):
    def test_a_cell_is_its_level_with_its_mark_within(self) -> None:
        width, lines, palette = pixels(picture.draw(HEAD))
        size = picture.CELL
        self.assertEqual((width, len(lines)), (3 * size, 3 * size))
        for y, row in enumerate(HEAD["rows"]):
            for x, cell in enumerate(picture.decode(row.ljust(3, "A"))):
                self.assertEqual(lines[y * size + size // 2][x * size + size // 2], cell)
                self.assertEqual(lines[y * size][x * size], cell & ~3)
        self.assertEqual(tuple(palette[3 * 63:]), picture.MARKS[3])
        self.assertGreater(palette[0], palette[3 * 60])

    def test_page_holds_its_pictures_and_no_reference(self) -> None:
        page = report.page(results())
        self.assertIn("data:image/png;base64,", page)
        self.assertIn("layer 1, head 2", page)
        self.assertIn("ema &lt;1/8&gt;", page)
        for outside in ("http:", "https:", "<script", "<link"):
            self.assertNotIn(outside, page)

    def test_page_without_picture(self) -> None:
        of = results()
        del of["picture"]
        self.assertNotIn("<img", report.page(of))

    def test_table_has_intervals_where_there_are_some(self) -> None:
        row = report.markdown(results()).splitlines()[3]
        self.assertIn("75% (30-95)", row)
        self.assertIn("0.900 ±0.020", row)
        self.assertIn("| 0.0100 |", row)

    def test_runs_of_other_methods_are_merged(self) -> None:
        other = results()
        other["policies"] = [{"name": "full 100%"}, {"name": "quest <1/8>"}]
        other["text"].append({**other["text"][0], "policy": 0, "agreement": 0.1})
        whole = report.merge([results(), other])
        self.assertEqual([p["name"] for p in whole["policies"]],
                         ["full 100%", "ema <1/8>", "quest <1/8>"])
        self.assertEqual([e["policy"] for e in whole["text"]], [1, 2])
        self.assertEqual(whole["picture"]["policy"], 2)
        with self.assertRaises(SystemExit):
            report.merge([results(), {**other, "model": "another.gguf"}])


if __name__ == "__main__":
    unittest.main()

"""Attention histories as images: PNG files made with the standard library alone."""

from __future__ import annotations

import base64
import struct
import zlib

ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
LEVELS_AN_OCTAVE = 1.25
CELL = 5  # pixels; the middle ones carry the mark
MARKS = {1: (222, 45, 38), 2: (66, 133, 244), 3: (26, 160, 70)}
LEGEND = {1: "best, but not kept", 2: "kept, but not among the best", 3: "kept, and among the best"}


def decode(row: str) -> list[int]:
    """Cells of a row as kvsift-eval writes them: level << 2 | kept << 1 | best."""
    return [ALPHABET.index(c) for c in row]


def share(cell: int) -> float:
    """The largest share of attention in the cell's block, to about a quarter."""
    level = cell >> 2
    return 2 ** ((level - 15) / LEVELS_AN_OCTAVE) if level else 0.0


def looks_back(head: dict) -> float:
    """How much a head attends to blocks that are neither the first nor among the newest."""
    return sum(share(c) for row in head["rows"] for c in decode(row)[1:-3])


def palette() -> bytes:
    colours: list[int] = []
    for cell in range(64):
        grey = 255 - 16 * (cell >> 2)
        colours += MARKS.get(cell & 3, (grey, grey, grey))
    return bytes(colours)


def chunk(kind: bytes, data: bytes) -> bytes:
    checksum = zlib.crc32(kind + data)
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum)


def png(lines: list[bytes]) -> bytes:
    """An image of palette indices, one byte a pixel."""
    header = struct.pack(">IIBBBBB", len(lines[0]), len(lines), 8, 3, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + line for line in lines), 9)
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"PLTE", palette())
            + chunk(b"IDAT", pixels) + chunk(b"IEND", b""))


def draw(head: dict) -> bytes:
    """PNG of a head: a line of cells for each step, oldest on top, a column for each block."""
    rows = [decode(row) for row in head["rows"]]
    columns = max(map(len, rows))
    lines = []
    for row in rows:
        row += [0] * (columns - len(row))
        edge = b"".join(bytes([c & ~3]) * CELL for c in row)
        middle = b"".join(bytes([c & ~3, *[c] * (CELL - 2), c & ~3]) for c in row)
        lines += [edge, *[middle] * (CELL - 2), edge]
    return png(lines)


def image_tag(head: dict) -> str:
    data = base64.b64encode(draw(head)).decode()
    return f"<img alt='layer {head['layer']}, head {head['head']}' src='data:image/png;base64,{data}'>"

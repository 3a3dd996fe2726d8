"""Running text for training: read a folder, unwrap prose, hold out the end of every file."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import sentencepiece

from tasks import Corpus

HELD_OUT = 0.05
LONGEST_SENTENCE = 60


def unwrap(text: str) -> str:
    """Join hard-wrapped prose: a line of 50 characters or more goes on in the next one."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    text = re.sub(r"(?<=[^\n]{50})\n(?=[^\n])", " ", text)
    return re.sub(r" {2,}", " ", re.sub(r"\n{2,}", "\n", text))


def read_folder(folder: Path) -> dict[str, str]:
    if not folder.is_dir():
        sys.exit(f"{folder}: not a folder; expected one that holds .txt files")
    texts = {}
    for path in sorted(folder.glob("*.txt")):
        try:
            texts[path.name] = unwrap(path.read_bytes().decode("utf-8", errors="replace"))
        except OSError as error:
            sys.exit(f"{path}: cannot be read ({error.strerror})")
    if not texts:
        sys.exit(f"{folder}: holds no .txt file")
    return texts


def split_held_out(text: str) -> tuple[str, str]:
    cut = text.rfind(" ", 0, int(len(text) * (1 - HELD_OUT)))
    return text[:cut], text[cut + 1:]


def sentence_starts(tokens: np.ndarray, pieces: list[str]) -> np.ndarray:
    """Positions where a sentence begins; a very long one is cut at a word."""
    opens = np.array([p.startswith("\u2581") for p in pieces])
    ends = np.array([p.endswith((".", "!", "?", ".\"", "<0x0A>")) for p in pieces])
    starts = [0]
    word = opens[tokens]
    after_end = np.concatenate([[False], ends[tokens[:-1]]])
    for i in np.flatnonzero(word):
        if after_end[i] and i - starts[-1] >= 4 or i - starts[-1] >= LONGEST_SENTENCE:
            starts.append(int(i))
    return np.array(starts + [len(tokens)])


def load(folder: Path,
         tokenizer: sentencepiece.SentencePieceProcessor) -> tuple[Corpus, Corpus, dict[str, str]]:
    """Training corpus, held-out corpus and the held-out text of every file."""
    pieces = [tokenizer.id_to_piece(i) for i in range(tokenizer.vocab_size())]
    parts: tuple[list, list] = ([], [])
    held_out = {}
    for name, text in read_folder(folder).items():
        train, held_out[name] = split_held_out(text)
        for ids, part in zip(parts, (train, held_out[name])):
            ids += tokenizer.encode(part)
    corpora = []
    for ids in parts:
        tokens = np.array(ids, dtype=np.int32)
        corpora.append(Corpus(tokens, sentence_starts(tokens, pieces)))
    return corpora[0], corpora[1], held_out

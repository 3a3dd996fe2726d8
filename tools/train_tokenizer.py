"""Train the SentencePiece BPE vocabulary of the example model on a folder of text."""

from __future__ import annotations

import missing  # noqa: F401

import argparse
import sys
from pathlib import Path

import numpy as np
import sentencepiece

from corpus import read_folder
from tasks import ADJECTIVES, FACT, NOUNS, QUESTION, VALUES


def task_lines(count: int, seed: int) -> list[str]:
    """Sample sentences of the tasks, so that their words become single pieces."""
    rng = np.random.default_rng(seed)
    lines = []
    for _ in range(count):
        key = f"{rng.choice(ADJECTIVES)} {rng.choice(NOUNS)}"
        words = " ".join(rng.choice(VALUES, 4))
        lines.append(FACT.format(attr="word", key=key, value=words)
                     + QUESTION.format(attr="code", key=key))
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("text", type=Path, help="folder of .txt files")
    parser.add_argument("output", type=Path, help="model prefix; .model and .vocab are written")
    parser.add_argument("--pieces", type=int, default=1024)
    parser.add_argument("--task-lines", type=int, default=60000)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    lines = [line for text in read_folder(args.text).values() for line in text.split("\n") if line]
    print(f"{len(lines)} lines of text, {args.task_lines} of tasks", file=sys.stderr)
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines + task_lines(args.task_lines, args.seed)),
        model_prefix=str(args.output), model_type="bpe", vocab_size=args.pieces,
        byte_fallback=True, split_digits=True, character_coverage=0.9995,
        normalization_rule_name="identity", remove_extra_whitespaces=False,
        add_dummy_prefix=True, max_sentence_length=100000, minloglevel=1,
        unk_id=0, bos_id=1, eos_id=2, pad_id=-1)


if __name__ == "__main__":
    main()

"""Long-context tasks in the manner of RULER, built as token sequences around running text.

The wording is fixed; C programs that build prompts use the same sentences:

  fact      " The {attr} of the {adj} {noun} is {value}."
  question  " Question: the {attr} of the {adj} {noun} is"   answer " {value}."

attr "code" has four digits as value, "word" one word of VALUES, "list" six words of VALUES.
A chain plants " The code of the A is the code of the B." beside B's code; the answer to A is
" the code of the B is {digits}.", and longer chains continue the same way.
Counting: " Count the {noun}:" then nouns, ". The count is", answer " {digit}.".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable

import numpy as np

ADJECTIVES = ("red blue green black white gold grey pink brown silver dark pale tall small old "
              "young wild calm proud brave quick quiet loud warm").split()
NOUNS = ("fox owl wolf bear lion crow hawk deer hare goat swan duck frog toad mole seal crab "
         "moth wasp lamb colt mare bull cat dog pig hen rat bat bee elk ox").split()
VALUES = ("lamp rope coin drum bell harp flag boat cart wheel door gate wall roof tower bridge "
          "river hill lake cave field barn mill well road tree rose leaf seed corn bread "
          "salt").split()

FACT = " The {attr} of the {key} is {value}."
QUESTION = " Question: the {attr} of the {key} is"
ANSWER = " {value}."

FRAME_WEIGHT = 0.1
ANSWER_WEIGHT = 2.0


@dataclass
class Fact:
    key: tuple[int, int]
    attr: str
    statement: list[int]
    answer: list[int]
    target: Fact | None = None  # of a chain's link: the fact it refers to
    at: int = -1                # where in the sequence the statement begins

    def sources(self) -> list[int]:
        """Where in the sequence each token of the answer stands; -1: nowhere, it is implied."""
        end = self.at + len(self.statement)
        if self.target is None:
            return list(range(end - len(self.answer), end))
        value = len(self.answer) - len(self.target.answer) - 1
        return list(range(end - 1 - value, end - 1)) + [-1] + self.target.sources()


class Corpus:
    """Tokenised running text, cut at sentence starts so that facts can be put between."""

    def __init__(self, tokens: np.ndarray, starts: np.ndarray) -> None:
        self.tokens = tokens
        self.starts = starts

    def cursor(self, rng: np.random.Generator) -> int:
        return int(rng.integers(0, len(self.starts) - 1))

    def sentence(self, index: int) -> tuple[list[int], int]:
        """The sentence at index and the index after it (wrapping round)."""
        index %= len(self.starts) - 1
        return self.tokens[self.starts[index]:self.starts[index + 1]].tolist(), index + 1

    def span(self, start: int, length: int) -> list[int]:
        start = min(start, len(self.tokens) - length)
        return self.tokens[start:start + length].tolist()


class Sequence:
    """Tokens with the loss weight of each, and the ranges that hold answers."""

    def __init__(self, bos: int) -> None:
        self.ids = [bos]
        self.weights = [0.0]
        self.answers: list[tuple[int, int]] = []
        self.pointers: list[tuple[int, int]] = []

    def add(self, ids: list[int], weight: float) -> None:
        self.ids += ids
        self.weights += [weight] * len(ids)

    def add_statement(self, fact: Fact) -> None:
        fact.at = len(self.ids)
        self.add(fact.statement, 0.03)

    def add_answer(self, ids: list[int], sources: list[int] | None = None) -> None:
        first = len(self.ids)
        self.answers.append((first, first + len(ids)))
        self.pointers += [(first + i - 1, s) for i, s in enumerate(sources or []) if s >= 0]
        self.add(ids, ANSWER_WEIGHT)

    def __len__(self) -> int:
        return len(self.ids)


class TaskMaker:
    """Builds sequences. `encode` maps words to token ids, as if a space stood before them."""

    def __init__(self, encode: Callable[[str], list[int]], bos: int, corpus: Corpus,
                 text_weight: float = 0.4) -> None:
        self.bos, self.text_weight = bos, text_weight
        self.corpus = corpus
        self.ids = {w: encode(w) for w in
                    ADJECTIVES + NOUNS + VALUES + "The Question: the of is code word list".split()}
        self.count_ids = {w: encode(w) for w in ["Count the", "The count is"]}
        self.digits = [encode(str(d))[-1] for d in range(10)]
        self.space = encode("1")[:-1]
        self.dot = encode("a.")[-1:]
        self.colon = encode("a:")[-1:]

    def _reference(self, attr: str, key: tuple[int, int]) -> list[int]:
        ids = self.ids
        return (ids[attr] + ids["of"] + ids["the"] + ids[ADJECTIVES[key[0]]]
                + ids[NOUNS[key[1]]])

    def _value(self, attr: str, rng: np.random.Generator) -> list[int]:
        if attr == "code":
            return self.space + [self.digits[d] for d in rng.integers(0, 10, 4)]
        count = 1 if attr == "word" else 6
        return [t for v in rng.choice(len(VALUES), count, replace=False)
                for t in self.ids[VALUES[v]]]

    def _new_key(self, used: set, rng: np.random.Generator, similar: float) -> tuple[int, int]:
        while True:
            key = (int(rng.integers(len(ADJECTIVES))), int(rng.integers(len(NOUNS))))
            if used and rng.random() < similar:
                old = list(used)[int(rng.integers(len(used)))]
                key = (old[0], key[1]) if rng.random() < 0.4 else (key[0], old[1])
            if key not in used:
                used.add(key)
                return key

    def statement(self, attr: str, key: tuple[int, int], value: list[int]) -> list[int]:
        return (self.ids["The"] + self._reference(attr, key) + self.ids["is"] + value + self.dot)

    def question(self, attr: str, key: tuple[int, int]) -> list[int]:
        return (self.ids["Question:"] + self.ids["the"] + self._reference(attr, key)
                + self.ids["is"])

    def new_fact(self, used: set, rng: np.random.Generator, similar: float,
                 attrs: tuple[str, ...] = ("code", "code", "word", "list")) -> Fact:
        attr = attrs[int(rng.integers(len(attrs)))]
        key = self._new_key(used, rng, similar)
        value = self._value(attr, rng)
        return Fact(key, attr, self.statement(attr, key, value), value + self.dot)

    def new_chain(self, used: set, rng: np.random.Generator, links: int) -> list[Fact]:
        """A code and `links` references to it; the last fact is the one worth asking for."""
        facts = [self.new_fact(used, rng, 0.0, ("code",))]
        for _ in range(links):
            target = facts[-1]
            key = self._new_key(used, rng, 0.0)
            value = self.ids["the"] + self._reference("code", target.key)
            facts.append(Fact(key, "code", self.statement("code", key, value),
                              value + self.ids["is"] + target.answer, target))
        return facts

    def text(self, length: int, rng: np.random.Generator) -> Sequence:
        seq = Sequence(self.bos)
        start = int(self.corpus.starts[self.corpus.cursor(rng)])
        seq.add(self.corpus.span(start, length - 1), 2.5 * self.text_weight)
        return seq

    def repeat(self, length: int, rng: np.random.Generator, vocab: int) -> Sequence:
        """Random tokens or text, said again and again: what makes induction heads."""
        seq = Sequence(self.bos)
        while len(seq) < length:
            size = int(rng.integers(8, max(9, length // 4)))
            if rng.random() < 0.7:
                span = rng.integers(259, vocab, size).tolist()
            else:
                span = self.corpus.span(int(self.corpus.starts[self.corpus.cursor(rng)]), size)
            seq.add(span, 0.02)
            for _ in range(int(rng.integers(1, 4))):
                part = span[int(rng.integers(0, max(1, size // 2))):]
                seq.add(part[:2], 0.02)
                seq.add(part[2:], 0.7)
        return seq

    def counting(self, rng: np.random.Generator, seq: Sequence) -> None:
        target, other = rng.choice(len(NOUNS), 2, replace=False)
        count = int(rng.integers(1, 7))
        words = [target] * count + [other] * int(rng.integers(1, 7))
        rng.shuffle(words)
        seq.add(self.count_ids["Count the"] + self.ids[NOUNS[target]] + self.colon, 0.05)
        for w in words:
            seq.add(self.ids[NOUNS[w]], 0.05)
        seq.add(self.dot + self.count_ids["The count is"], FRAME_WEIGHT)
        seq.add_answer(self.space + [self.digits[count]] + self.dot)

    def interleaved(self, length: int, rng: np.random.Generator, pending: int, filler: float,
                    similar: float, chains: float) -> Sequence:
        """Facts, questions and text in turn; about `pending` facts wait for their question."""
        seq = Sequence(self.bos)
        used: set = set()
        waiting: list[Fact] = []
        asked: list[Fact] = []
        cursor = self.corpus.cursor(rng)
        while len(seq) < length:
            roll = rng.random()
            if roll < filler:
                ids, cursor = self.corpus.sentence(cursor)
                seq.add(ids, self.text_weight)
            elif not waiting or (len(waiting) < pending and rng.random() < 0.6):
                if rng.random() < 0.04:
                    self.counting(rng, seq)
                new = (self.new_chain(used, rng, int(rng.integers(1, 3)))
                       if rng.random() < chains else [self.new_fact(used, rng, similar)])
                for i in rng.permutation(len(new)):
                    seq.add_statement(new[i])
                    waiting.append(new[i])
            else:
                again = asked and rng.random() < 0.15
                pool = asked if again else waiting
                fact = pool[int(rng.integers(len(pool)))]
                seq.add(self.question(fact.attr, fact.key), FRAME_WEIGHT)
                seq.add_answer(fact.answer, fact.sources())
                if not again:
                    waiting.remove(fact)
                    asked.append(fact)
        return seq

    def haystack(self, length: int, rng: np.random.Generator, planted: list[Fact],
                 asked: list[Fact], depths: list[float] | None = None) -> Sequence:
        """Facts at the given (or random) depths of one text, all questions at its end.

        The sequence ends with the last answer and is at most `length` tokens long.
        """
        tail = sum(len(self.question(f.attr, f.key)) + len(f.answer) for f in asked)
        room = length - 1 - tail - sum(len(f.statement) for f in planted)
        at = rng.random(len(planted))
        if depths is not None:
            at[:len(depths)] = depths
        order = np.argsort(at, kind="stable")
        seq = Sequence(self.bos)
        cursor = self.corpus.cursor(rng)
        text = 0
        next_fact = 0
        while True:
            while next_fact < len(order) and text >= at[order[next_fact]] * (room - 60):
                seq.add_statement(planted[order[next_fact]])
                next_fact += 1
            ids, cursor = self.corpus.sentence(cursor)
            if text + len(ids) > room:
                break
            seq.add(ids, self.text_weight)
            text += len(ids)
        for i in order[next_fact:]:
            seq.add_statement(planted[i])
        for fact in asked:
            seq.add(self.question(fact.attr, fact.key), FRAME_WEIGHT)
            seq.add_answer(fact.answer, fact.sources())
        return seq

    def training_haystack(self, length: int, rng: np.random.Generator, most: int,
                          similar: float) -> Sequence:
        used: set = set()
        planted = [self.new_fact(used, rng, similar)
                   for _ in range(int(rng.integers(2, most + 1)))]
        if rng.random() < 0.25 and length >= 384:
            planted += self.new_chain(used, rng, int(rng.integers(1, 3)))
        asked = [planted[i] for i in rng.permutation(len(planted))]
        return self.haystack(length, rng, planted, asked)

    def needle(self, length: int, rng: np.random.Generator, depth: float, keys: int = 1,
               distractors: int = 4, attr: str = "code") -> Sequence:
        """The measured form: `keys` facts asked for once each among similar ones never asked."""
        used: set = set()
        planted = [self.new_fact(used, rng, 0.0, (attr,)) for _ in range(keys)]
        asked = list(planted)
        planted += [self.new_fact(used, rng, 0.7, (attr,)) for _ in range(distractors)]
        return self.haystack(length, rng, planted, asked, [depth])

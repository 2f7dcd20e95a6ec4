"""Owns the translate task, from English to Spanish, verse by verse: from King James to Reina-Valera 1909, which are in
the public domain.

The package carries the 6689 pairs with at most 16 words a side (see _make_bible_subsets.py). A --data-dir with a file
`pairs.tsv` (UTF-8, lines "source TAB target") gives other pairs. Words and punctuation marks are tokens, in lower case;
the most frequent ones of the training pairs make the vocabularies. Next target tokens are guessed
when the true ones before are given (teacher forcing); a target outside of the vocabulary does not count. The score is
the share of bits that is saved of those that a guess by frequency alone costs; the loss is shown as perplexity.
"""

from __future__ import annotations

import lzma
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from ..errors import UsageError
from ..net import Inputs
from .base import IGNORED, Budget, Split, Task
from .text import read

PAIRS = Path(__file__).resolve().parent.parent / "data" / "kjv_rv1909_pairs.txt.xz"
_PAD, _UNKNOWN, _EDGE = 0, 1, 2  # token numbers; _EDGE begins and ends a target
_WORDS = 2000  # of each vocabulary, those three included
_LENGTH = 20  # tokens of a sentence; longer ones are cut
_HELD_OUT = 20  # one pair of so many validates, one tests
_BUDGET = Budget(batch_size=64, sweep_steps=40, train_steps=200)
_TOKEN = re.compile(r"\w+|[^\w\s]")


def tokens(sentence: str) -> list[str]:
    """Returns the words and punctuation marks in lower case."""
    return _TOKEN.findall(sentence.lower())


def read_pairs(folder: Path | None, name: str) -> list[tuple[str, str]]:
    """Returns source and target of each pair as they stand, from the carried file or from folder/pairs.tsv. Raises
    UsageError where that is not what the task `name` wants."""
    path = PAIRS if folder is None else folder / "pairs.tsv"
    text = lzma.decompress(PAIRS.read_bytes()).decode("utf-8") if folder is None else read(path, name)
    pairs = []
    for number, line in enumerate(text.splitlines(), 1):
        sides = line.split("\t")
        if len(sides) != 2 or not all(side.strip() for side in sides):
            raise UsageError(f"--data-dir: {path} line {number} is not 'source TAB target'")
        pairs.append((sides[0], sides[1]))
    if len(pairs) < 5 * _HELD_OUT:
        raise UsageError(f"--data-dir: {path} has {len(pairs)} pairs; {name} wants {5 * _HELD_OUT} or more")
    return pairs


def vocabulary(sentences: Sequence[Sequence[str]]) -> dict[str, int]:
    """Numbers the tokens from 3 on, the most frequent first, and ties in order of the alphabet."""
    counts = Counter(token for sentence in sentences for token in sentence)
    ordered = sorted(counts, key=lambda token: (-counts[token], token))[: _WORDS - 3]
    return {token: k + 3 for k, token in enumerate(ordered)}


def _split(pairs: Sequence[tuple[list[str], list[str]]], words: tuple[dict[str, int], dict[str, int]]) -> Split:
    x = np.full((len(pairs), 2 * _LENGTH), _PAD, np.int64)
    y = np.full((len(pairs), _LENGTH), IGNORED, np.int64)
    for row, (source, target) in enumerate(pairs):
        numbers = [words[0].get(token, _UNKNOWN) for token in source[:_LENGTH]]
        x[row, : len(numbers)] = numbers
        numbers = [_EDGE, *(words[1].get(token, _UNKNOWN) for token in target[: _LENGTH - 1])]
        x[row, _LENGTH : _LENGTH + len(numbers)] = numbers
        asked = [*numbers[1:], _EDGE]
        y[row, : len(asked)] = [IGNORED if number == _UNKNOWN else number for number in asked]
    return Split(torch.from_numpy(x), torch.from_numpy(y))


def load(data_dir: Path | None) -> Task:
    """Returns the task from the carried pairs, or from data_dir/pairs.tsv."""
    pairs = [(tokens(source), tokens(target)) for source, target in read_pairs(data_dir, "translate")]
    train = [pair for k, pair in enumerate(pairs) if k % _HELD_OUT > 1]
    words = (vocabulary([pair[0] for pair in train]), vocabulary([pair[1] for pair in train]))
    sizes = (len(words[0]) + 3, len(words[1]) + 3)
    return Task(
        "translate",
        _split(train, words),
        _split(pairs[::_HELD_OUT], words),
        _split(pairs[1::_HELD_OUT], words),
        classes=sizes[1],
        width=64,
        budget=_BUDGET,
        net="gru",
        depth=1,
        inputs=Inputs("pair", vocabulary=sizes[1], length=_LENGTH, source=_LENGTH, source_vocabulary=sizes[0]),
        loss_name="perplexity",
        score="bits-saved",
    )

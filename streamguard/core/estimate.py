"""Estimates for models whose tokenizer is not public, from a public one.

Three things make such a tokenizer differ from o200k: its vocabulary is smaller, so that rare
words fall apart; it splits a quotation mark or plus sign from the space before it; it takes
digits one by one. Each is counted and has a weight, fitted per family.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from streamguard.core.tokens import Tokenizer

RARE = 80_000
"""Ids are given out by frequency: from about here on, a vocabulary of 65k needs two tokens."""

_MARK = re.compile(r" ['+]")
_DIGITS = re.compile(r"\d{2,}")


class Weights(NamedTuple):
    """Tokens of the model for: a token, a rare token more, a mark, a digit beyond the first
    of its token.
    """

    token: float = 1.0
    rare: float = 0.0
    mark: float = 0.0
    digit: float = 0.0


class Estimator:
    """A ``Tokenizer`` whose ``count`` is the estimate in thousandths of a token."""

    __slots__ = ("_tokenizer", "_weights", "max_token_bytes", "name")

    def __init__(self, tokenizer: Tokenizer, weights: Weights) -> None:
        self.name = f"{tokenizer.name}*{':'.join(map(str, weights))}"
        self.max_token_bytes = tokenizer.max_token_bytes
        self._tokenizer = tokenizer
        self._weights = weights

    def count(self, text: str) -> int:
        """Thousandths of a token, rounded."""
        ids = self._tokenizer.encode(text)
        weights = self._weights
        total = len(ids) * weights.token
        if weights.rare:
            total += weights.rare * sum(1 for one in ids if one >= RARE)
        if weights.mark:
            total += weights.mark * len(_MARK.findall(text))
        if weights.digit:
            total += weights.digit * sum(_more(run) for run in _DIGITS.findall(text))
        return round(total * 1000)

    def encode(self, text: str) -> list[int]:
        """The ids of the tokenizer behind it."""
        return self._tokenizer.encode(text)


def _more(run: str) -> int:
    """Digits in a run beyond its tokens of up to three."""
    return len(run) - (len(run) + 2) // 3

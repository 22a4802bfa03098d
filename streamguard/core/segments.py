"""A long text in segments that are tokenized one by one, with the tokens of the whole."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from streamguard.core.pretokens import Grammar, grammar_for
from streamguard.core.runs import fold_run
from streamguard.core.tokens import Tokenizer

_LOOK_BACK = 512
"""Characters before the end of a window that are searched for a settled pair."""


class Segment(NamedTuple):
    """The tokens of ``text`` but for those of its first part, ``lead``."""

    text: str
    lead: str = ""


def pieces(text: str, grammar: Grammar, size: int) -> Iterator[str]:
    """The text in parts of about ``size`` characters, each tokenized as if alone.

    A part is longer where no two neighbouring characters prove a position settled.
    """
    start, end = 0, size
    while end < len(text):
        position = grammar.settled(text[max(start, end - _LOOK_BACK) : end])
        if position:
            position += max(start, end - _LOOK_BACK)
            yield text[start:position]
            start = position
        end += size
    yield text[start:]


def segments(tokenizer: Tokenizer, text: str, size: int) -> Iterator[Segment]:
    """The text in segments of at most ``size`` characters, cut inside long runs too.

    A segment is longer than that only where nothing at all is settled. ``tokenizer`` must be
    good for texts of a few times ``size``.
    """
    grammar = grammar_for(tokenizer.name)
    start, lead, reach = 0, "", size
    while grammar is not None and start + reach < len(text):
        window = lead + text[start : start + reach]
        position = grammar.settled(window, max(0, len(window) - _LOOK_BACK))
        position, following = position or grammar.scanned(window), ""
        if not position:
            fold = fold_run(tokenizer, window)
            position, following = (fold.position, fold.lead) if fold else (0, "")
        if position:
            yield Segment(window[:position], lead)
            start += position - len(lead)
            lead, reach = following, size
        else:
            reach *= 2
    yield Segment(lead + text[start:], lead)

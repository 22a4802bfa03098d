"""A long text in segments that are tokenized one by one, with the tokens of the whole."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from streamguard.core.pretokens import Grammar, grammar_for
from streamguard.core.runs import fold_run
from streamguard.core.tokens import Tokenizer


class Segment(NamedTuple):
    """The tokens of ``text`` but for those of its first part, ``lead``."""

    text: str
    lead: str = ""


def pieces(text: str, grammar: Grammar, size: int) -> Iterator[str]:
    """The text in parts of about ``size`` characters, each tokenized as if alone.

    A part is longer where no two neighbouring characters prove a position settled.
    """
    start = 0
    end = size
    while end < len(text):
        window = text[start:end]
        position = grammar.settled(window)
        if position:
            yield window[:position]
            start += position
            end = start + size
        else:
            end += end - start
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
        position, following = grammar.settled(window) or grammar.scanned(window), ""
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

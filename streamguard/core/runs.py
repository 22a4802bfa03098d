"""Settling tokens inside one very long pretoken: a run of one letter, of spaces, of signs.

Such a run has no edge of a pretoken to cut at, yet its first tokens do not change any more. What
is used of byte-pair encoding: a merge is never undone, and merges left and right of a position
that no merge crosses go on as if the other side were not there. So

1. if the tokens of ``s`` have an edge at ``q``, they are the tokens of ``s[:q]`` followed by
   those of ``s[q:]``;
2. tokens that are each other's neighbours in some encoding may be neighbours in any (the first
   merge to cross an edge of two tokens depends on these two alone), so if ``s`` has an edge at
   ``q`` with the token ``t`` after it, and ``t`` is also the first token of ``s[q:k]``, then
   ``s[:k]`` has an edge at ``q`` too.

Take ``s`` with any continuation ``X``. Some edge of ``s + X``, the last one not after the end of
``s``, lies in the last 127 bytes of ``s``, for a token is at most 128 bytes; call it ``k``. By
1, the tokens up to ``k`` are those of ``s[:k]``. So an edge ``q`` that *every* ``s[:k]`` has is
an edge of ``s + X`` for every ``X``: it is settled. By 2 it takes one short encoding to see that
for one ``k``. ``k`` must be at a character's edge, since tokenizers take text: for ASCII it is;
otherwise an edge at a character's edge is at most three bytes and one token (131 bytes) before
that, provided that no token there both starts and ends inside (different) characters. There
are eleven such tokens in all; where their bytes turn up, nothing is settled.

All this holds inside *one* pretoken, so the run must be inside the first pretoken for every
``X``, and so must each ``s[q:k]`` when it is encoded alone. Each kind of run says by what it
starts and of which characters it is. Where the matcher would not be in the same state at ``q``
as it is at the run's start, a *lead* is put in front of the rest: characters that put it in that
state and that no token shares with what follows, so that they add a fixed number of tokens.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

from streamguard.core.characters import MARK, OTHER_LETTER, classify
from streamguard.core.tokens import Tokenizer

_LOWER_LEAD = "\u024d"
_SIGN_LEAD = "\u21b0\u21b0"

_LETTER = f"A-Za-z{OTHER_LETTER}"
_UPPER = f"A-Z{OTHER_LETTER}{MARK}"
_LOWER = f"a-z{OTHER_LETTER}{MARK}"
_SPACE = r"\t-\r "
_SIGN = rf"[^{_SPACE}{_LETTER}0-9]"
_BARE = rf"[^{_SPACE}{_LETTER}{MARK}0-9]"
_PREFIX = rf"[^\r\n{_LETTER}{MARK}0-9]?"

_BLANKS = r"([\t\x0b\x0c ]+)(?=[\t\x0b\x0c ])"
_LINE_ENDS = rf"(?:[{_SPACE}]*[\t\x0b\x0c ])?([\r\n]+)"
_O200K_KINDS = (
    (rf"{_PREFIX}([A-Z]+)", ""),
    (rf"{_PREFIX}(?:[{_UPPER}]*[A-Z])?([{OTHER_LETTER}{MARK}]+)", ""),
    (rf"{_PREFIX}[{_UPPER}]*[a-z]([{_LOWER}]+)", _LOWER_LEAD),
    (rf"(?: {_BARE}|{_BARE}(?={_BARE}))((?:{_BARE}|{MARK})+)", _SIGN_LEAD),
    (rf"(?: {_BARE}|{_BARE}(?=[\r\n]|{_BARE})){_SIGN}*+(?:[\r\n]+/+)*+([\r\n]+)", _SIGN_LEAD),
    (_LINE_ENDS, ""),
    (_BLANKS, ""),
)
_CL100K_KINDS = (
    (rf"(?!'(?i:[sdmt]|ll|ve|re))(?:{_SIGN}|[\t\x0b\x0c ])?([{_LETTER}]+)", ""),
    (rf"(?: {_SIGN}|{_SIGN}(?={_SIGN}))({_SIGN}+)", _SIGN_LEAD),
    (rf"(?: {_SIGN}|{_SIGN}(?=[\r\n]|{_SIGN})){_SIGN}*+([\r\n]+)", _SIGN_LEAD),
    (_LINE_ENDS, ""),
    (_BLANKS, ""),
)
_O200K_STRADDLERS = (
    b"\xa3\xe1\x83", b"\x80\xe0\xb8", b"\x82\xe0\xb0", b"\xa0\xe1\x83", b"\xa1\xd5",
    b"\x9a\xe1\x9e", b"\x99\xe0\xa7\x8d\xe0\xa6", b"\x81\xef\xbd",
)  # fmt: skip
_CL100K_STRADDLERS = (b"\xa4\xed", b"\xa0\xed", b"\x92\xe1\x9e")

_INSIDE = range(0x80, 0xC0)
"""UTF-8 bytes that are not a character's first."""

_MIN_RUN = 1024
_ASCII_REACH = 127
_REACH = 260
_LONGEST = 128
_FARTHEST = 2048


@runtime_checkable
class SpellingTokenizer(Tokenizer, Protocol):
    """A tokenizer that can also say what a token's bytes are."""

    def token_bytes(self, token: int) -> bytes:
        """The bytes of one token."""


class Run(NamedTuple):
    """Where a run is in the text, and the lead for a rest that starts inside it."""

    start: int
    end: int
    lead: str


class Fold(NamedTuple):
    """``position`` is settled when ``lead`` is put before what follows it.

    ``tokens`` come before ``position``, less those of the lead: the count of everything is
    ``tokens`` plus that of ``lead + text[position:]``, whatever is appended to it.
    """

    position: int
    tokens: int
    lead: str


@dataclass(frozen=True, slots=True)
class RunRules:
    """The kinds of runs of one encoding and the tokens that straddle characters."""

    kinds: tuple[tuple[re.Pattern[str], str], ...]
    straddlers: re.Pattern[bytes]

    def find(self, text: str) -> Run | None:
        """The longest run in the first pretoken of ``text``, which starts at a settled edge."""
        classes = classify(text)
        matches = ((kind.match(classes), lead) for kind, lead in self.kinds)
        runs = [Run(*match.span(1), lead) for match, lead in matches if match]
        longest = max(runs, key=lambda run: run.end - run.start, default=None)
        if longest is None or longest.end - longest.start < _MIN_RUN:
            return None
        return longest


def _rules(kinds: tuple[tuple[str, str], ...], straddlers: tuple[bytes, ...]) -> RunRules:
    return RunRules(
        tuple((re.compile(kind), lead) for kind, lead in kinds),
        re.compile(b"|".join(map(re.escape, straddlers))),
    )


_O200K = _rules(_O200K_KINDS, _O200K_STRADDLERS)
_RULES = {
    "o200k_base": _O200K,
    "o200k_harmony": _O200K,
    "cl100k_base": _rules(_CL100K_KINDS, _CL100K_STRADDLERS),
}


def fold_run(tokenizer: Tokenizer, text: str) -> Fold | None:
    """Settle what can be of a long run that ``text`` starts with; ``None`` if nothing can.

    Costs one encoding of the text and up to some 130 of a few hundred bytes.
    """
    rules = _RULES.get(tokenizer.name)
    run = rules.find(text) if rules else None
    if rules is None or run is None or not isinstance(tokenizer, SpellingTokenizer):
        return None
    reach = _ASCII_REACH if text[run.end - _REACH : run.end].isascii() else _REACH
    for edge in _edges(tokenizer, text[: run.end], reach):
        if edge.position <= run.start:
            return None
        if _is_settled(
            tokenizer, rules, text[edge.position : run.end], run.lead, edge.token, reach
        ):
            return Fold(edge.position, edge.tokens - tokenizer.count(run.lead), run.lead)
    return None


class _Edge(NamedTuple):
    """An edge between tokens, at a character's edge, and the token after it."""

    position: int
    tokens: int
    token: int


def _edges(tokenizer: SpellingTokenizer, text: str, reach: int) -> Iterator[_Edge]:
    """A few edges of the text's tokens, each further from its end."""
    ids = tokenizer.encode(text)
    distance = reach + _LONGEST
    tail = b""
    for index in range(len(ids) - 1, 0, -1):
        if len(tail) > _FARTHEST:
            return
        tail = tokenizer.token_bytes(ids[index]) + tail
        if len(tail) >= distance and tail[0] not in _INSIDE:
            yield _Edge(len(text) - len(tail.decode()), index, ids[index])
            distance = 2 * len(tail)


def _is_settled(
    tokenizer: Tokenizer, rules: RunRules, rest: str, lead: str, token: int, reach: int
) -> bool:
    """Whether ``token`` comes first in every beginning of ``rest`` that ends within reach."""
    if not rest.isascii() and rules.straddlers.search(rest.encode()):
        return False
    skip = tokenizer.count(lead)
    size, end = 0, len(rest)
    while size <= reach:
        if tokenizer.encode(lead + rest[:end])[skip] != token:
            return False
        end -= 1
        size += len(rest[end].encode())
    return True

"""Looking through long texts in turns: a scan in C keeps all other threads waiting."""

from __future__ import annotations

from collections.abc import Iterator
from time import sleep

from streamguard.core.characters import UNSTABLE, without_surrogates
from streamguard.core.prefixes import is_boundary

TURN = 65_536
"""Characters looked through before other threads get their turn: some 0.2 ms."""


def _turns(text: str) -> Iterator[tuple[int, int]]:
    start = 0
    while start < len(text):
        end = min(start + TURN, len(text))
        end += not is_boundary(text, end)
        yield start, end
        start = end
        if start < len(text):
            sleep(0)


def is_unstable(text: str) -> bool:
    """Whether engines class some character of the text differently, or it has surrogates."""
    return any(UNSTABLE.search(text, start, end) for start, end in _turns(text))


def mended(text: str) -> str:
    """The text without surrogates."""
    if text.isascii():
        return text
    return "".join([without_surrogates(text[start:end]) for start, end in _turns(text)])

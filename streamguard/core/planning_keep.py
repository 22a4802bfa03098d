"""What to keep of a component that is too long: strategies give an order of preference. Pure.

A strategy is any callable from units to their indexes, the dearest first. What it leaves out is
dropped, what it names is kept in that order as far as there is room.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from streamguard.core.planning_units import Message, Unit
from streamguard.errors import ConfigurationError

Strategy = Callable[[Sequence[Unit]], Iterable[int]]
Summariser = Callable[[Sequence[Message]], str | Awaitable[str]]


def newest_first(units: Sequence[Unit]) -> Iterable[int]:
    """Drop the oldest messages first."""
    return reversed(range(len(units)))


def oldest_first(units: Sequence[Unit]) -> Iterable[int]:
    """Keep the first messages, drop the last ones first."""
    return range(len(units))


def by_score(units: Sequence[Unit]) -> Iterable[int]:
    """Keep the best-scored chunks; equals in the order they were added."""
    return sorted(range(len(units)), key=lambda at: -(units[at].score or 0.0))


@dataclass(frozen=True, slots=True)
class LastMessages:
    """Keep at most the last ``messages``; a tool call and its results count one each."""

    messages: int

    def __post_init__(self) -> None:
        """Refuse a figure that cannot be."""
        _at_least("LastMessages", self.messages, 0)

    def __call__(self, units: Sequence[Unit]) -> Iterator[int]:
        """Newest first until the number is reached."""
        left = self.messages
        for at in newest_first(units):
            left -= len(units[at].positions)
            if left < 0:
                return
            yield at


@dataclass(frozen=True, slots=True)
class LastTokens:
    """Keep at most the last ``tokens``.

    With ``by_mean`` the number of messages is what fits at the mean message's size: a window
    that moves less when messages differ much.
    """

    tokens: int
    by_mean: bool = False

    def __post_init__(self) -> None:
        """Refuse a figure that cannot be."""
        _at_least("LastTokens", self.tokens, 0)

    def __call__(self, units: Sequence[Unit]) -> Iterator[int]:
        """Newest first until the tokens are reached."""
        if self.by_mean:
            yield from LastMessages(self._messages(units))(units)
            return
        left = float(self.tokens)
        for at in newest_first(units):
            left -= units[at].tokens
            if left < 0:
                return
            yield at

    def _messages(self, units: Sequence[Unit]) -> int:
        total = sum(unit.tokens for unit in units)
        number = sum(len(unit.positions) for unit in units)
        return int(self.tokens * number / total) if total else number


@dataclass(frozen=True, slots=True)
class KeepEdges:
    """Keep the ``first`` messages, then the newest: the middle goes first.

    Models use what stands at the edges of a long prompt best (Liu et al. 2023, "Lost in the
    Middle").
    """

    first: int = 2

    def __post_init__(self) -> None:
        """Refuse a figure that cannot be."""
        _at_least("KeepEdges", self.first, 0)

    def __call__(self, units: Sequence[Unit]) -> Iterator[int]:
        """The first ones, then newest first."""
        edge = min(self.first, len(units))
        yield from range(edge)
        yield from reversed(range(edge, len(units)))


@dataclass(frozen=True, slots=True)
class Summarise:
    """Replace what is dropped by a summary of at most ``tokens``.

    ``by`` takes the dropped messages (from the second time on: the last summary and the newly
    dropped ones) and returns the summary's text, or an awaitable of it, for which the plan must
    be awaited too (``aplan``). A longer text is cut at the exact token. ``keep`` says what is
    dropped.
    """

    by: Summariser
    tokens: int = 500
    keep: Strategy = newest_first
    role: str = "system"

    def __post_init__(self) -> None:
        """Refuse a figure that cannot be."""
        _at_least("Summarise", self.tokens, 16)

    def __call__(self, units: Sequence[Unit]) -> Iterable[int]:
        """The order of ``keep``."""
        return self.keep(units)


def said(strategy: Strategy) -> str:
    """A strategy's name in reports."""
    if isinstance(strategy, Summarise):
        return f"Summarise({strategy.tokens} tokens)"
    return getattr(strategy, "__name__", None) or repr(strategy)


def _at_least(name: str, value: object, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        message = f"{name}({value!r}) must be a whole number, at least {least}"
        raise ConfigurationError(message)

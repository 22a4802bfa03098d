"""What a guarded request holds already, for the calls made inside it to use up. Pure."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from streamguard.usage import Usage

SLACK = 16
"""Output tokens held beyond the allowance while the provider may send more than it: what comes
with the chunk that is cut is billed, and must not be over the budget."""


class Draw(NamedTuple):
    """Tokens an inner call takes from its outer call's reservation."""

    input_tokens: int
    output_tokens: int


class Fund:
    """The reservation of an outer call. What inner calls use of it is charged once."""

    def __init__(self, input_tokens: int, output_tokens: int) -> None:
        """Start with what the outer call holds."""
        self._left = Draw(input_tokens, output_tokens)
        self._spent = Draw(0, 0)
        self._open = Draw(0, 0)
        self.joined = False

    @property
    def left(self) -> Draw:
        """What no inner call has taken."""
        return self._left

    @property
    def committed(self) -> Draw:
        """What inner calls used, and all that those still running have drawn."""
        return _plus(self._spent, self._open)

    def merged(self, usage: Usage, *, billed: bool) -> Usage:
        """The outer call's usage, with what inner calls committed: they know what the provider
        billed, and what was streamed on may hold less or more.
        """
        if not self.joined:
            return usage
        inner, streamed = self.committed, usage.output_tokens or 0
        return replace(
            usage,
            input_tokens=inner.input_tokens or usage.input_tokens,
            output_tokens=max(inner.output_tokens, streamed if billed else 0),
        )

    def add(self, output_tokens: int) -> None:
        """Hold more output."""
        self._left = _plus(self._left, Draw(0, output_tokens))

    def draw(self, input_tokens: int, output_tokens: int) -> Draw:
        """Take as much of the need as is left."""
        taken = Draw(
            min(input_tokens, self._left.input_tokens),
            min(output_tokens, self._left.output_tokens),
        )
        self._left = _plus(self._left, _minus(taken))
        self._open = _plus(self._open, taken)
        self.joined = True
        return taken

    def put_back(self, drawn: Draw, used: Draw) -> None:
        """Close a draw: ``used`` is charged to the outer call, the rest may be drawn again."""
        unused = Draw(
            max(0, drawn.input_tokens - used.input_tokens),
            max(0, drawn.output_tokens - used.output_tokens),
        )
        self._left = _plus(self._left, unused)
        self._open = _plus(self._open, _minus(drawn))
        self._spent = _plus(self._spent, used)


def _plus(one: Draw, other: Draw) -> Draw:
    return Draw(
        one.input_tokens + other.input_tokens,
        one.output_tokens + other.output_tokens,
    )


def _minus(draw: Draw) -> Draw:
    return Draw(-draw.input_tokens, -draw.output_tokens)
